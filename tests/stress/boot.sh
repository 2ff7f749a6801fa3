#!/usr/bin/env bash
# Boot a real systemd in namespaces of its own: boot.sh FOLDER REPOSITORY PYTHON PACKAGES
# Nothing reaches the real system: its root is the lower layer of an overlay in memory.
# To be started in new pid, mount, uts, ipc, net and cgroup namespaces, in a cgroup of its own.
set -euo pipefail
folder=$1 repository=$2 python=$3 packages=$4
root=$folder/root

mkdir -p "$folder/memory" "$root"
mount -t tmpfs memory "$folder/memory"
mkdir "$folder/memory/upper" "$folder/memory/work"
mount -t overlay overlay -o \
  "lowerdir=/,upperdir=$folder/memory/upper,workdir=$folder/memory/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for empty in run tmp var/log/journal; do
  mkdir -p "$root/$empty"
  mount -t tmpfs tmpfs "$root/$empty"
done
# A /dev of its own: PrivateDevices= needs /dev/ptmx, and journald links /dev/log.
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
# Nothing that is enabled on the machine starts here.
for wants in "$root"/etc/systemd/system/*.wants "$root"/lib/systemd/system/*.wants; do
  [ -d "$wants" ] && mount -t tmpfs tmpfs "$wants"
done
mkdir -p "$root/run/systemd/system"
cat > "$root/run/systemd/system/test.target" << 'END'
[Unit]
Wants=systemd-journald.service dbus.socket
END

# The package as an operator has it: a wheel in an environment of its own. Only the libraries it
# needs are lent by the tests' environment, and the interpreter may live in somebody's home.
mkdir -p "$root/opt/python" "$root/opt/packages" "$root/opt/etcd-gateway" "$root/usr/local/bin"
mount --bind "$python" "$root/opt/python"
mount --bind "$packages" "$root/opt/packages"
# Its shared library, too: the one it was linked to is out of sight under ProtectHome=.
echo /opt/python/lib > "$root/etc/ld.so.conf.d/000-python.conf"
chroot "$root" ldconfig
chroot "$root" /opt/python/bin/python3 -m venv --without-pip /opt/etcd-gateway
site=$(echo "$root"/opt/etcd-gateway/lib/python3*/site-packages)
(cd "$site" && "$python/bin/python3" -m zipfile -e "$folder"/*.whl . )
echo /opt/packages > "$site/lent.pth"
printf '#!/opt/etcd-gateway/bin/python3\nimport sys\nfrom etcd_gateway import main\nsys.exit(main())\n' \
  > "$root/usr/local/bin/etcd-gateway"
chmod +x "$root/usr/local/bin/etcd-gateway"
cp "$repository/deploy/systemd/etcd-gateway.service" "$root/run/systemd/system/"
cp -r "$repository/deploy/systemd/drop-ins" "$root/opt/drop-ins"
mkdir "$root/run/systemd/system/etcd-gateway.service.d"
cp "$folder/etcd-gateway.default" "$root/etc/default/etcd-gateway"

mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
umount -l /run/old
# As a container manager does: credentials are mounted by a process of systemd's and have to show.
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=test.target --log-target=journal
