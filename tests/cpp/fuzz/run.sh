#!/usr/bin/env bash
# Runs each fuzz target for some seconds:  tests/cpp/fuzz/run.sh PREFIX [SECONDS [BUILD]]
#
# PREFIX is where a static bptt is installed, BUILD a folder that is kept; without it one is made and goes
# away. Needs clang++ with its runtime (Debian: libclang-rt-dev) and cmake. What ends a target is printed in
# base64 and left in BUILD as crash-*: it belongs into a test then.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
prefix=$1
seconds=${2:-30}
if [[ $# -ge 3 ]]; then
    build=$3
else
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
fi

cmake -S "$here" -B "$build" -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug -DCMAKE_PREFIX_PATH="$prefix"
cmake --build "$build"
for target in safetensors rtneural; do
    mkdir -p "$build/corpus_$target"  # for what it finds: the corpus here stays as it is
    "$build/fuzz_$target" "$build/corpus_$target" "$here/corpus/$target" -dict="$here/json.dict" \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$build/"
done
