#!/bin/sh
# Runs a machine until the input ends: serve.sh NAME IMAGE PACKAGES FOLDER, as root, in a mount namespace of its own.
# What the machine writes is in memory, stays over its reboots, and goes with it. Then the folder is removed.
set -eu
name=$1 image=$2 packages=$3 folder=$4

scratch=$folder/scratch
mkdir "$scratch"
mount -t tmpfs -o mode=755 tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay -o "lowerdir=$image,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$scratch/root"

# Two machines must not share a cgroup.
groups=
for hierarchy in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    if [ -e "$hierarchy/cgroup.procs" ]; then
        mkdir "$hierarchy/$name"
        groups="$groups $hierarchy/$name"
    fi
done

boot() {
    for group in $groups; do
        echo 0 >"$group/cgroup.procs"
    done
    # 133 says that the machine wants to be rebooted.
    status=133
    while [ "$status" -eq 133 ]; do
        status=0
        systemd-nspawn --quiet --directory="$scratch/root" --machine="$name" --boot --register=no --keep-unit \
            --private-network --notify-ready=yes --console=pipe --bind-ro="$packages:/packages" || status=$?
    done
}
boot </dev/null &

# What is left ends with the test, whether that ends well or is killed.
read -r _ || true
set +e
for group in $groups; do
    while [ -e "$group" ]; do
        find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null | xargs --no-run-if-empty kill -s KILL 2>/dev/null
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    done
done
rmdir "/run/systemd/nspawn/propagate/$name" 2>/dev/null
umount --recursive "$scratch"
rm -rf "$folder"
