#!/usr/bin/env bash
# What dayfold does on one GPU, in ten minutes: a table as text and as JSON.
#
#     benchmarks/gpu.sh WHEELS FOLDER [options of gpu.py: --device cpu --size 32 --images 40 …]
#
# WHEELS is a folder with those wheels that this Python lacks ("-" for none). The machine needs no
# network, DVC or git; torch and torchvision it has. gpu.md and gpu.json are written to FOLDER, or
# to $OUT where that is set (then without FOLDER); MINUTES sets another limit. Where torch's usual
# companions are installed (NumPy, Pillow, safetensors, psutil, PyYAML, rich, typer), the wheels are
# 55 MiB, polars 52 of them:
#
#     pip download --no-deps --only-binary=:all: --python-version 3.12 \
#         --platform manylinux2014_x86_64 -d WHEELS \
#         polars polars-runtime-32 pydantic pydantic-core annotated-types typing-inspection
set -u
wheels=${1:?"WHEELS: a folder, or -"}
shift
if [ -z "${OUT:-}" ]; then
    OUT=${1:?"FOLDER: where the table is to be"}
    shift
fi
mkdir -p "$OUT"
out=$(cd "$OUT" && pwd)
[ "$wheels" = - ] || wheels=$(cd "$wheels" && pwd) || exit
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$PWD/src:$work/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# Not a virtual environment: where this Python is one itself, another would not see its torch.
if [ "$wheels" != - ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" \
        "$wheels"/*.whl || exit
fi

# A step that fails or takes too long is a row, and the next one is taken.
minutes=${MINUTES:-10}
take() {
    local left=$((minutes * 60 - 30 - SECONDS)) limit=$((minutes * 15))
    limit=$((left < limit ? left : limit))
    timeout -k 5 "$((limit > 1 ? limit : 1))" "$python" benchmarks/gpu.py "$@" >"$work/said" 2>&1
    local code=$?
    tee -a "$out/gpu.log" <"$work/said"
    [ $code = 0 ] || printf '{"what": "%s", "found": "exit code %s, see gpu.log", "met": false}\n' \
        "$1" $code >>"$work/rows.jsonl"
}
for step in day speed again kill two; do
    take "$step" "$work" "$@"
done
"$python" benchmarks/gpu.py table "$work" --out "$out" "$@"
