#!/usr/bin/env bash
# Compiles every source for Apple Silicon on Linux, without a warning and without the precompiled header, and links the
# program against Apple's MLX. The compiler is PyPI's ziglang, MLX its macOS wheel; headers of other libraries are
# Debian's, which are the same on every processor. What those libraries define stays open in the link: nothing of ours
# and nothing of MLX may. A check of sources, not a way to make releases. Tests are not compiled.
#   check_macos.sh             says so and succeeds where PyPI has no ziglang for this machine
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
build=build/macos
mkdir -p "$build"

zig_version=0.17.1
if [ ! -x "$build/zig/bin/python" ] || ! "$build/zig/bin/python" -m ziglang version >/dev/null 2>&1; then
  python3 -m venv "$build/zig"
  if ! "$build/zig/bin/python" -m pip install --quiet --disable-pip-version-check "ziglang==$zig_version" 2>"$build/zig.log"; then
    echo "check-macos is skipped: PyPI gives no ziglang $zig_version here ($build/zig.log)"
    exit 0
  fi
fi
mlx=$(tools/fetch_mlx.sh macosx_14_0_arm64)
export ZIG_GLOBAL_CACHE_DIR=$PWD/$build/zig-cache ZIG_LOCAL_CACHE_DIR=$PWD/$build/zig-cache

# Only the headers that we name: the rest of /usr/include is Linux's.
include=$build/include
mkdir -p "$include"
architecture=$(gcc -print-multiarch)
for name in fmt nlohmann spdlog CLI toml++ boost openssl prometheus pcre2.h utf8proc.h zip.h zipconf.h zlib.h zconf.h editline curl; do
  for root in /usr/include "/usr/include/$architecture"; do
    if [ -e "$root/$name" ] && [ ! -e "$include/$name" ]; then cp -r "$root/$name" "$include/$name"; fi
  done
done
for name in configuration.h opensslconf.h; do
  if [ -e "/usr/include/$architecture/openssl/$name" ]; then cp "/usr/include/$architecture/openssl/$name" "$include/openssl/"; fi
done

sources=$(find src -name '*.cc' ! -name '*_test.cc' ! -name '*_bench.cc' ! -name '*test_support.cc' ! -name 'staged_backend.cc' \
  ! -name 'model_digest.cc' ! -path '*/cuda/*' ! -name 'kernels_a*.cc' \( ! -path 'src/grpc/*' -o -name without_grpc.cc \) | sort)
{
  cat <<NINJA
builddir = $build
zig = $PWD/$build/zig/bin/python -m ziglang c++ -target aarch64-macos.14.0
flags = -std=c++20 -O0 -fno-sanitize=undefined -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror -ffp-contract=off -Isrc -isystem $include -isystem $mlx/include -DPENSIEVE_MLX -DPENSIEVE_VERSION='"check"'
rule compile
  command = \$zig \$flags \$extra -MD -MF \$out.d -c \$in -o \$out
  depfile = \$out.d
  deps = gcc
  description = \$in
NINJA
  for source in $sources; do
    echo "build $build/objects/$source.o: compile $source"
    # This compiler's float.h wants math.h before it, which toml++ does not know.
    if grep -q 'toml++' "$source"; then echo "  extra = -include math.h"; fi
    if [ "$(basename "$source")" = kernels_i8mm.cc ]; then echo "  extra = -mcpu=apple_m2"; fi
  done
} >"$build/build.ninja.new"
cmp -s "$build/build.ninja.new" "$build/build.ninja" 2>/dev/null || cp "$build/build.ninja.new" "$build/build.ninja"
ninja --quiet -k 0 -f "$build/build.ninja" -j "$jobs"

# The linker names what nobody defines. Each object comes once; libmlx.dylib is the one library that is there.
objects=$(for source in $sources; do echo "$build/objects/$source.o"; done)
# shellcheck disable=SC2086  # word splitting is meant
if "$build/zig/bin/python" -m ziglang c++ -target aarch64-macos.14.0 $objects "$mlx/lib/libmlx.dylib" -o "$build/pensieve" \
  2>"$build/link.log"; then
  echo "Everything links."
else
  grep -q 'undefined symbol' "$build/link.log" || { cat "$build/link.log"; exit 1; }
  if grep 'undefined symbol' "$build/link.log" | grep -E 'pensieve|mlx' | grep -vE 'undefined symbol: _*(fmt|spdlog|prometheus|boost)'; then
    echo "These are defined neither by our sources nor by MLX."
    exit 1
  fi
fi
echo "$(echo "$sources" | wc -l) sources compile for Apple Silicon; left to other libraries: $(grep -c 'undefined symbol' "$build/link.log" || true) symbols"
