//! The machine as Linux describes it in /proc and /sys; on other systems less is known.

use std::fs::{read_dir, read_to_string};

/// The name of the processor, or its architecture if the system does not give a name.
pub(super) fn cpu() -> String {
    let name = field("/proc/cpuinfo", "model name");
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The CPU's instruction sets that matter for matrix products.
pub(super) fn cpu_features() -> Vec<String> {
    const WANTED: [&str; 11] = [
        "sse4_2",
        "avx2",
        "fma",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_bf16",
        "amx_tile",
        "amx_bf16",
        "asimd",
        "sve",
    ];
    let flags = field("/proc/cpuinfo", "flags").or_else(|| field("/proc/cpuinfo", "Features"));
    let flags = flags.unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let has = |wanted: &&str| flags.contains(wanted);
    WANTED.into_iter().filter(has).map(str::to_owned).collect()
}

/// Total and free memory, and the limit that a container or a queue sets.
pub(super) fn memory() -> String {
    let kib = |name| {
        let text = field("/proc/meminfo", name)?;
        text.strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let gib = |kib: u64| format!("{:.1} GiB", kib as f64 / f64::from(1 << 20));
    let (Some(total), Some(free)) = (kib("MemTotal"), kib("MemAvailable")) else {
        return "unknown".to_owned();
    };
    let limit = read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|bytes| bytes.trim().parse::<u64>().ok());
    let limit = limit
        .map(|bytes| format!(", limited to {}", gib(bytes >> 10)))
        .unwrap_or_default();
    format!("{} of {} free{limit}", gib(free), gib(total))
}

/// The names of the GPUs that the NVIDIA driver lists.
pub(super) fn gpus() -> Vec<String> {
    let Ok(folders) = read_dir("/proc/driver/nvidia/gpus") else {
        return Vec::new();
    };
    let model = |folder: std::fs::DirEntry| {
        let path = folder.path().join("information");
        field(path.to_str()?, "Model")
    };
    let mut gpus: Vec<String> = folders.flatten().filter_map(model).collect();
    gpus.sort();
    gpus
}

/// The value of the first line `name: value` in a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim() == name);
    values.next().map(|(_, value)| value.trim().to_owned())
}
