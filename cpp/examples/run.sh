#!/usr/bin/env bash
# Builds and runs every example:  cpp/examples/run.sh PREFIX
#
# PREFIX is where bptt is installed. Python's bptt, which trains the character model, is that of `python`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

cmake -S "$here" -B "$build" -DBPTT_INSTALLED=ON -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$1"
cmake --build "$build"
for example in sine_online audio_effect ledger; do
    printf '\n-- %s\n' "$example"
    "$build/$example"
done
printf '\n-- character\n'
python -m bptt train --cell gru --hidden 128 --updates 150 --out "$build/model" > /dev/null
"$build/character" "$build/model/model.safetensors"
