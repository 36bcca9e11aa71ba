//! `/sys`: one processor, its node, and the limits of the function as a control group has them.

use alloc::vec::Vec;

use super::machine::{fixed, memory_bytes, setting};
use super::{Item, Subject};
use crate::kernel::Kernel;
use crate::text::text;

macro_rules! made {
    ($path:literal, $make:expr) => {
        Item {
            path: $path,
            permissions: 0o444,
            make: $make,
        }
    };
}

pub(super) const ITEMS: &[Item] = &[
    fixed!("class/net/lo/address", "00:00:00:00:00:00\n"),
    fixed!("class/net/lo/mtu", "65536\n"),
    fixed!("devices/system/cpu/cpu0/cache/index0/coherency_line_size", "64\n"),
    fixed!("devices/system/cpu/cpu0/cache/index0/level", "1\n"),
    fixed!("devices/system/cpu/cpu0/cache/index0/shared_cpu_list", "0\n"),
    fixed!("devices/system/cpu/cpu0/cache/index0/size", "32K\n"),
    fixed!("devices/system/cpu/cpu0/cache/index0/type", "Data\n"),
    fixed!("devices/system/cpu/cpu0/topology/core_cpus_list", "0\n"),
    fixed!("devices/system/cpu/cpu0/topology/core_id", "0\n"),
    fixed!("devices/system/cpu/cpu0/topology/core_siblings_list", "0\n"),
    fixed!("devices/system/cpu/cpu0/topology/physical_package_id", "0\n"),
    fixed!("devices/system/cpu/cpu0/topology/thread_siblings_list", "0\n"),
    fixed!("devices/system/cpu/kernel_max", "0\n"),
    fixed!("devices/system/cpu/offline", "\n"),
    fixed!("devices/system/cpu/online", "0\n"),
    fixed!("devices/system/cpu/possible", "0\n"),
    fixed!("devices/system/cpu/present", "0\n"),
    fixed!("devices/system/node/node0/cpulist", "0\n"),
    fixed!("devices/system/node/node0/cpumap", "1\n"),
    fixed!("devices/system/node/online", "0\n"),
    fixed!("devices/system/node/possible", "0\n"),
    fixed!("fs/cgroup/cgroup.controllers", "cpu memory pids\n"),
    made!("fs/cgroup/cgroup.procs", |kernel, _| {
        let ids = kernel.process_ids().into_iter();
        ids.flat_map(|id| text!("{id}\n").into_bytes()).collect()
    }),
    setting!("fs/cgroup/cgroup.subtree_control", "\n"),
    fixed!("fs/cgroup/cgroup.type", "domain\n"),
    setting!("fs/cgroup/cpu.max", "100000 100000\n"),
    setting!("fs/cgroup/cpu.weight", "100\n"),
    fixed!(
        "fs/cgroup/cpu.stat",
        "usage_usec 0\nuser_usec 0\nsystem_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"
    ),
    fixed!("fs/cgroup/cpuset.cpus.effective", "0\n"),
    fixed!("fs/cgroup/cpuset.mems.effective", "0\n"),
    made!("fs/cgroup/memory.current", |kernel, _| {
        let (total, free) = memory_bytes(kernel);
        text!("{}\n", total - free).into_bytes()
    }),
    fixed!(
        "fs/cgroup/memory.events",
        "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n"
    ),
    setting!("fs/cgroup/memory.high", "max\n"),
    made!("fs/cgroup/memory.max", limit),
    setting!("fs/cgroup/memory.low", "0\n"),
    made!("fs/cgroup/memory.peak", |kernel, _| {
        let (total, free) = memory_bytes(kernel);
        text!("{}\n", total - free).into_bytes()
    }),
    made!("fs/cgroup/memory.stat", |kernel, _| {
        let (total, free) = memory_bytes(kernel);
        text!("anon {}\nfile 0\ninactive_file 0\nactive_file 0\n", total - free).into_bytes()
    }),
    fixed!("fs/cgroup/memory.swap.current", "0\n"),
    fixed!("fs/cgroup/memory.swap.max", "0\n"),
    made!("fs/cgroup/pids.current", |kernel, _| {
        text!("{}\n", kernel.tasks.len()).into_bytes()
    }),
    setting!("fs/cgroup/pids.max", "max\n"),
    fixed!("kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n"),
    fixed!("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n"),
    setting!(
        "kernel/mm/transparent_hugepage/defrag",
        "always defer defer+madvise madvise [never]\n"
    ),
    setting!(
        "kernel/mm/transparent_hugepage/enabled",
        "always madvise [never]\n"
    ),
    fixed!("kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n"),
    setting!(
        "kernel/mm/transparent_hugepage/shmem_enabled",
        "always within_size advise [never] deny force\n"
    ),
    setting!("kernel/mm/transparent_hugepage/use_zero_page", "0\n"),
];

fn limit(kernel: &mut Kernel, _: Subject) -> Vec<u8> {
    text!("{}\n", memory_bytes(kernel).0).into_bytes()
}
