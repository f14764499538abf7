#!/usr/bin/env bash
# Runs the tests on AArch64 on any machine: qemu runs the Python 3.11 of Debian 12 for arm64, with torch and a wheel.
#
#     tools/test_aarch64.sh FOLDER [PYTEST ARGUMENT ...]
#
# FOLDER keeps the downloads, 2 GB. WHEEL is the wheel; without it tools/wheels.sh builds one. PYTHON is a Python 3.11
# whose headers are in one folder. Needs apt-get and Debian's keys, a static qemu-aarch64 (Debian's qemu-user) and
# Linux 6.7, where a user namespace may have its own binfmt_misc: the machine is not changed and root is not needed.
# All tests take many hours; name some, such as tests/test_bits.py.
set -euo pipefail
folder=$(realpath -m "$1") PYTHON=${PYTHON:-python3.11}
shift
[ $# -gt 0 ] || set -- --pyargs tests srcell
cd "$(dirname "$0")/.."
root=$folder/root

if [ ! -e "$root/done" ]; then
    apt=$folder/apt
    mkdir -p "$apt"/{lists/partial,archives/partial,none}
    mkdir -p "$root"/{clone,dev,etc,proc,root,site,tmp,usr/bin,usr/sbin,usr/lib}
    echo "deb http://deb.debian.org/debian bookworm main" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<END
APT { Architecture "arm64"; Architectures "arm64"; Install-Recommends "false"; Sandbox::User "root"; };
Dir { State::Lists "$apt/lists"; State::Status "/dev/null"; Cache "$apt"; };
Dir::Etc { SourceList "$apt/sources.list"; SourceParts "$apt/none"; Parts "$apt/none"; PreferencesParts "$apt/none"; };
END
    export APT_CONFIG=$apt/apt.conf
    apt-get -qq update
    apt-get -qq --yes --download-only install bash coreutils dash gcc grep libc6-dev libc-bin libgomp1 python3.11 sed
    for name in bin sbin lib; do ln -sfn usr/$name "$root/$name"; done
    for package in "$apt"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink --no-same-owner
    done
    # The packages' own installation scripts would have made these.
    ln -sf gcc "$root/usr/bin/cc"
    echo "root:x:0:0:root:/root:/bin/sh" >"$root/etc/passwd"
    touch "$root/done"
fi

if [ -z "${WHEEL:-}" ]; then
    MACHINES=aarch64 tools/wheels.sh "$folder/wheels" "$PYTHON"
    WHEEL=$(find "$folder/wheels" -name "*_aarch64.whl")
fi
# pip, told that it runs on AArch64. torch 2.10 is PyPI's last for AArch64 without CUDA; tonic is left out, because its
# expelliarmus has no wheel for AArch64.
[ -e "$folder/pip" ] || { "$PYTHON" -m venv "$folder/pip" && "$folder/pip/bin/pip" install --quiet --upgrade pip; }
install() {
    "$folder/pip/bin/python" -c 'import platform, sys; platform.machine = lambda: "aarch64"
from pip._internal.cli.main import main; sys.exit(main())' install --quiet --target "$folder/site" --only-binary=:all: \
        --python-version 3.11 --platform=manylinux{_2_{28,27,26,24,17},2014}_aarch64 "$@"
}
[ -e "$folder/site/torch" ] ||
    install "srcell[train,onnx,nir] @ file://$(realpath "$WHEEL")" torch==2.10.\* hypothesis onnxruntime pytest tensorboard
install --no-deps --upgrade "$WHEEL"

magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
# shellcheck disable=SC2016  # the inner shell's variables
exec unshare --user --map-root-user --mount --pid --fork --kill-child bash -ec '
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
qemu=$(command -v qemu-aarch64-static qemu-aarch64 | head -1)
printf %s ":aarch64:M::$2:$3:$qemu:PF" >/proc/sys/fs/binfmt_misc/register
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount --bind "$1/site" "$1/root/site"
mount --bind . "$1/root/clone"
/usr/sbin/chroot "$1/root" /usr/bin/env -i -C /clone HOME=/root PATH=/usr/bin PYTHONPATH=/site QEMU_CPU=neoverse-n1 \
    python3.11 -m pytest "${@:4}"
' bash "$folder" "$magic" "$mask" "$@"
