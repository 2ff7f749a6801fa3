#!/usr/bin/env bash
# Boot a Debian made by debootstrap with its own systemd: boot_debian.sh FOLDER DEBIAN
# DEBIAN is the lower layer of an overlay in memory and stays as it is.
# To be started in new pid, mount, uts, ipc, net and cgroup namespaces, in a cgroup of its own.
set -euo pipefail
folder=$1 debian=$2
root=$folder/root

mkdir -p "$folder/memory" "$root"
mount -t tmpfs memory "$folder/memory"
mkdir "$folder/memory/upper" "$folder/memory/work"
mount -t overlay overlay -o \
  "lowerdir=$debian,upperdir=$folder/memory/upper,workdir=$folder/memory/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root/packages" "$root/run/systemd/system"
cp "$folder"/*.deb "$root/packages/"
cat > "$root/run/systemd/system/test.target" << 'END'
[Unit]
Wants=systemd-journald.service dbus.socket
END

mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
umount -l /run/old
# As a container manager does: credentials are mounted by a process of systemd's and have to show.
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=test.target --log-target=journal
