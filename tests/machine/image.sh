#!/bin/sh
# Makes the root filesystem of the machines that tests boot: image.sh FOLDER, as root.
set -eu
folder=$1
. /etc/os-release

# Where the host gets this release from; its other sources (updates, third parties) are not needed.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $VERSION_CODENAME" \
    'Component: main' 2>/dev/null | head -n 1)

# Each boot makes a machine ID of its own. PostgreSQL and Postfix are there for the tests that start them.
mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io \
    --include=systemd,systemd-sysv,dbus,procps,curl,adduser,strace,postgresql,postfix \
    --customize-hook=': >"$1/etc/machine-id"' \
    --customize-hook='mkdir -p "$1/var/log/journal"' \
    --customize-hook='systemctl --quiet --root="$1" disable postgresql.service postfix.service' \
    --customize-hook='systemctl --quiet --root="$1" mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer' \
    --customize-hook='systemctl --quiet --root="$1" mask e2scrub_all.timer e2scrub_reap.service fstrim.timer' \
    "$VERSION_CODENAME" "$folder" "${mirror:-http://deb.debian.org/debian}"
