#!/usr/bin/env bash
# An arm64 Python with ONNX Runtime in a folder of its own, to be run under QEMU: benchmarks/arm_root.sh FOLDER
# From Debian 12's packages and PyPI's wheels (some 500 MB); nothing is installed on this system.
set -euo pipefail
root=$(mkdir -p "$1" && cd "$1" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/state/lists/partial "$work"/cache/archives/partial "$work"/debs
touch "$work"/state/status
apt() {
  apt-get -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$work/state" \
    -o Dir::State::status="$work/state/status" -o Dir::Cache="$work/cache" -o Debug::NoLocking=1 -qq "$@"
}
apt update
(cd "$work"/debs && apt download libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 \
  liblzma5 libuuid1 libsqlite3-0 libcrypt1 libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libcom-err2 \
  libkrb5support0 libkeyutils1 python3.11-minimal libpython3.11-minimal python3.11 libpython3.11-stdlib)
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$root"; done
platforms=$(printf -- '--platform manylinux_2_%s_aarch64 ' 28 27 24 17)
# shellcheck disable=SC2086
"$python" -m pip install -q $platforms --platform manylinux2014_aarch64 --python-version 3.11 \
  --only-binary=:all: --target "$root/site" numpy onnxruntime
# ONNX Runtime asks the system about the CPU, and must not see this one.
mkdir -p "$root"/proc "$root"/sys/devices/system/cpu
echo 0 | tee "$root"/sys/devices/system/cpu/possible > "$root"/sys/devices/system/cpu/present
cat > "$root"/proc/cpuinfo <<'CPU'
processor	: 0
BogoMIPS	: 50.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1

CPU
