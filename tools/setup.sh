#!/usr/bin/env bash
# Installs the packages that a step needs and that are missing: setup.sh build|test|lint|fuzz|arm. Quiet when nothing is.
# Debian and Ubuntu through apt (as root or with sudo), macOS through brew; elsewhere it names what to install.
set -euo pipefail

step=${1:?usage: setup.sh build|test|lint|fuzz|arm}
stamp=build/setup-$step.stamp
# The stamp holds this script's checksum: an unchanged script that once succeeded has nothing to do.
sum=$(cksum < "$0")
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]; then exit 0; fi

apt_build="ca-certificates g++ cmake ninja-build ccache mold pkg-config libfmt-dev nlohmann-json3-dev libspdlog-dev libcli11-dev
  libtomlplusplus-dev libboost1.81-dev libssl-dev libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev
  prometheus-cpp-dev libpcre2-dev libutf8proc-dev libcurl4-openssl-dev libzip-dev zlib1g-dev libedit-dev libgtest-dev libgmock-dev libbenchmark-dev"
apt_test="python3 python3-venv"
apt_lint="clang-format python3"
apt_fuzz="clang libclang-rt-14-dev"
apt_arm="g++-aarch64-linux-gnu qemu-user googletest"
brew_build="cmake ninja ccache pkg-config fmt nlohmann-json spdlog cli11 tomlplusplus boost openssl@3 grpc protobuf prometheus-cpp
  pcre2 utf8proc curl libzip libedit googletest google-benchmark"
brew_test="python"
brew_lint="clang-format@14 python"
brew_fuzz="llvm"
brew_arm=""  # there `make test` itself runs on Arm

fail() { printf '%s\n' "$*" >&2; exit 1; }

with_apt() {
  local wanted missing=""
  wanted=$(eval "echo \$apt_$step")
  for package in $wanted; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  local sudo=""
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "These packages are missing, and installing them needs root or sudo:$missing
Ask an administrator for:  apt-get install$missing"
    sudo=sudo
  fi
  echo "Installing:$missing"
  export DEBIAN_FRONTEND=noninteractive
  $sudo apt-get update -qq || fail "apt-get update failed: is the network there?"
  # shellcheck disable=SC2086  # word splitting is meant
  $sudo apt-get install -y -qq --no-install-recommends $missing >build/setup-apt.log 2>&1 ||
    { tail -n 20 build/setup-apt.log >&2; fail "apt-get could not install:$missing"; }
}

with_brew() {
  local wanted missing=""
  wanted=$(eval "echo \$brew_$step")
  for package in $wanted; do
    brew list --versions "$package" >/dev/null 2>&1 || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  echo "Installing:$missing"
  # shellcheck disable=SC2086
  brew install --quiet $missing || fail "brew could not install:$missing"
}

mkdir -p build
if command -v apt-get >/dev/null 2>&1; then
  with_apt
elif command -v brew >/dev/null 2>&1; then
  with_brew
else
  fail "Neither apt-get nor brew is here. Install these (Debian's names), then run again with the stamp in place:
$(eval "echo \$apt_$step")
  echo '$sum' > $stamp"
fi
printf '%s\n' "$sum" > "$stamp"
