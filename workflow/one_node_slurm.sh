#!/usr/bin/env bash
# A Slurm cluster of one node, this machine, to try workflow/slurm on before it meets a real one.
#
#   sudo workflow/one_node_slurm.sh [start]     install what is missing (Debian, Ubuntu), start, show sinfo
#   sudo workflow/one_node_slurm.sh stop        end its jobs and daemons; nothing is uninstalled
#
# Everything listens on the loopback address alone. No cgroups and no accounting database: sacct has
# nothing to tell, squeue remembers a job for an hour. State and logs: /var/lib/one-node-slurm.
set -euo pipefail

CONF=/etc/slurm/slurm.conf
STATE=/var/lib/one-node-slurm
MARK="# written by workflow/one_node_slurm.sh"

die() { echo "error: $*" >&2; exit 1; }

ours() { [ -f "$CONF" ] && [ "$(head -n 1 "$CONF")" = "$MARK" ]; }

running() {  # pid file: 0 if its process is alive
    [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null
}

end() {  # pid file: end its process, and wait for it
    running "$1" || return 0
    local pid
    pid=$(cat "$1")
    kill "$pid"
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.2; done
    die "process $pid of $1 does not end; see $STATE"
}

install_packages() {
    local missing=()
    for pair in slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client munged:munge; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "not installed: ${missing[*]}; only apt-get is known here, install them yourself"
    echo "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

write_conf() {
    local host memory
    host=$(hostname -s)
    memory=$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    mkdir -p "$(dirname "$CONF")" "$STATE/ctld" "$STATE/d"
    cat >"$CONF" <<EOF
$MARK
ClusterName=one-node
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/d
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MinJobAge=3600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
}

start() {
    [ ! -e "$CONF" ] || ours || die "$CONF is not of this script: this machine is part of another Slurm cluster"
    install_packages
    if ! munge -n >/dev/null 2>&1; then
        [ -f /etc/munge/munge.key ] || { (umask 077 && head -c 128 /dev/urandom >/etc/munge/munge.key); chown munge: /etc/munge/munge.key; }
        install -d -o munge -g munge -m 755 /run/munge
        install -d -o munge -g munge -m 700 /var/lib/munge /var/log/munge
        runuser -u munge -- munged || die "munged does not start; see /var/log/munge/munged.log"
    fi
    running "$STATE/slurmctld.pid" || write_conf
    running "$STATE/slurmctld.pid" || slurmctld || die "slurmctld does not start; see $STATE/slurmctld.log"
    running "$STATE/slurmd.pid" || slurmd || die "slurmd does not start; see $STATE/slurmd.log"
    for _ in $(seq 60); do
        [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && break
        sleep 0.5
    done
    sinfo || die "slurmctld does not answer; see $STATE/slurmctld.log"
    case "$(sinfo -h -o %t)" in idle | mix | alloc) ;; *) die "the node is not ready; see $STATE/slurmd.log" ;; esac
    echo "try it: srun hostname"
    echo "stop it: sudo workflow/one_node_slurm.sh stop"
}

stop() {
    ours || die "nothing to stop: $CONF is not of this script"
    if running "$STATE/slurmctld.pid"; then scancel --state=RUNNING,PENDING --partition=main 2>/dev/null || true; fi
    end "$STATE/slurmd.pid"
    end "$STATE/slurmctld.pid"
    munged --stop >/dev/null 2>&1 || true
    rm -f "$CONF"
    echo "stopped; logs in $STATE"
}

[ "$(id -u)" = 0 ] || die "needs root: sudo $0 ${1:-start}"
case "${1:-start}" in
    start) start ;;
    stop) stop ;;
    *) die "unknown argument '$1'; expected start or stop" ;;
esac
