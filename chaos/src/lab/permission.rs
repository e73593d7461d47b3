//! Why this user may not make namespaces, as far as the kernel's settings tell.

use std::fs::read_to_string;

use procfs::process::Process;

/// `CAP_SYS_ADMIN`, from linux/capability.h.
const SYS_ADMIN: u64 = 1 << 21;

/// Whether this process may make namespaces as it is; else it needs a user namespace first.
pub(super) fn is_privileged() -> bool {
    let status = Process::myself().and_then(|process| process.status());
    status.is_ok_and(|status| status.capeff & SYS_ADMIN != 0)
}

/// The setting that stands in the way, and its remedy. A fallible guess, made only after the
/// kernel refused.
pub(super) fn why_refused() -> String {
    let forbidding = SETTINGS.iter().filter(|setting| setting.forbids());
    let told: Vec<_> = forbidding
        .map(|setting| {
            format!("sysctl {} is {}; {}", setting.name, setting.value(), setting.remedy)
        })
        .collect();
    match told.is_empty() {
        false => told.join("; "),
        true => "no sysctl is known to forbid it: a container's seccomp filter or a security \
                 module may; run it as root, or outside of the container"
            .into(),
    }
}

struct Setting {
    name: &'static str,
    forbidding: &'static str,
    remedy: &'static str,
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "kernel.unprivileged_userns_clone",
        forbidding: "0",
        remedy: "root can set it to 1",
    },
    Setting {
        name: "kernel.apparmor_restrict_unprivileged_userns",
        forbidding: "1",
        remedy: "root can set it to 0, or give this program an AppArmor profile with `userns`",
    },
    Setting {
        name: "user.max_user_namespaces",
        forbidding: "0",
        remedy: "root can set it to some thousands",
    },
    Setting { name: "user.max_pid_namespaces", forbidding: "0", remedy: "root can raise it" },
    Setting { name: "user.max_net_namespaces", forbidding: "0", remedy: "root can raise it" },
    Setting { name: "user.max_mnt_namespaces", forbidding: "0", remedy: "root can raise it" },
];

impl Setting {
    fn value(&self) -> String {
        let path = format!("/proc/sys/{}", self.name.replace('.', "/"));
        read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    fn forbids(&self) -> bool {
        self.value() == self.forbidding
    }
}
