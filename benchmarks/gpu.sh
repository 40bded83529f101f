#!/usr/bin/env bash
# What dayfold does on one GPU, in ten minutes: a table, gpu.md, and what was said, gpu.log.
#
#     benchmarks/gpu.sh WHEELS FOLDER [options of gpu.py: --device cpu --size 32 --images 40 …]
#
# WHEELS is a folder with those wheels that this Python lacks ("-" for none). The machine needs no
# network, DVC or git; torch and torchvision it has. MINUTES sets another limit. Where torch's usual
# companions are installed (NumPy, Pillow, safetensors, psutil, PyYAML, rich, typer), the wheels are
# 55 MiB, polars 52 of them:
#
#     pip download --no-deps --only-binary=:all: --python-version 3.12 \
#         --platform manylinux2014_x86_64 -d WHEELS \
#         polars polars-runtime-32 pydantic pydantic-core annotated-types typing-inspection
set -u
wheels=${1:?"WHEELS: a folder, or -"} out=${2:?"FOLDER: where the table is to be"}
shift 2
here=$(dirname "$0") work=$(mktemp -d) python=${PYTHON:-python3} minutes=${MINUTES:-10}
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
printf '| what | found | |\n| --- | --- | --- |\n' >"$out/gpu.md"
PYTHONPATH="$(cd "$here/.." && pwd)/src:$work/site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH PYTHONUNBUFFERED=1
# Not a virtual environment: where this Python is one itself, another would not see its torch.
if [ "$wheels" != - ]; then
    "$python" -m pip install --quiet --no-index --no-deps --target "$work/site" \
        "$wheels"/*.whl || exit
fi
# A step that fails or takes too long is a row, and the next one is taken.
for step in day speed again kill two; do
    left=$((minutes * 60 - 30 - SECONDS)) limit=$((minutes * 15))
    limit=$((left < limit ? left : limit))
    timeout -k 5 "$((limit > 1 ? limit : 1))" "$python" "$here/gpu.py" "$work" "$out" \
        --step "$step" "$@" 2>&1 | tee -a "$out/gpu.log"
    code=${PIPESTATUS[0]}
    [ "$code" = 0 ] || printf '| %s | exit code %s, see gpu.log | MISSED |\n' \
        "$step" "$code" >>"$out/gpu.md"
done
cat "$out/gpu.md"
