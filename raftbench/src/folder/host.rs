//! What is told of the machine that a run was on. Not its name, its addresses or its users.

use std::fs::read_to_string;

use toml::{Table, Value};

/// `[host]` of the manifest; what this kernel does not tell is left out.
pub(super) fn host() -> Table {
    let mut host = Table::new();
    let mut tell = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            host.insert(key.to_owned(), value);
        }
    };
    tell("cpu", field("/proc/cpuinfo", "model name").map(Value::from));
    let cores = std::thread::available_parallelism().ok();
    tell("cores", cores.and_then(|cores| i64::try_from(cores.get()).ok()).map(Value::from));
    tell("memory_bytes", memory_bytes().map(Value::from));
    tell("kernel", line("/proc/sys/kernel/osrelease").map(Value::from));
    let clock = line("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    tell("clock_source", clock.map(Value::from));
    host
}

fn memory_bytes() -> Option<i64> {
    let total = field("/proc/meminfo", "MemTotal")?;
    total.strip_suffix(" kB")?.trim().parse::<i64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn line(path: &str) -> Option<String> {
    read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The first `key : value` of that key.
fn field(path: &str, key: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}
