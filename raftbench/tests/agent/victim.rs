//! What this program is when a trial starts it as something to be broken.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// What it is to be: `echo ADDRESS`, or `PID_FILE MODE [FILE]`.
pub(crate) const ROLE: &str = "AGENT_TESTS_ROLE";

/// Where servers listen.
pub(crate) const PORT: u16 = 7000;

const CHUNK: usize = 64 << 10;

/// `None`: it is the suite itself.
pub(crate) fn role() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["echo"] => echo(),
        [pid_file, mode, ref file @ ..] => {
            let partial = format!("{pid_file}.new");
            std::fs::write(&partial, std::process::id().to_string()).expect("written");
            std::fs::rename(&partial, pid_file).expect("renamed");
            match mode {
                "burn" => burn(),
                "write" => write(file[0]),
                "read" => read(file[0]),
                _ => loop {
                    thread::sleep(Duration::from_millis(5));
                },
            }
        }
        _ => Some(ExitCode::FAILURE),
    }
}

fn echo() -> ! {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("bound");
    for stream in listener.incoming() {
        let mut stream: TcpStream = stream.expect("accepted");
        stream.set_nodelay(true).expect("set");
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = stream.read(&mut bytes) {
                if count == 0 || stream.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
        });
    }
    unreachable!("a listener goes on for ever")
}

fn burn() -> ! {
    let mut number = 1_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005));
    }
}

/// Past the page cache, 6 MiB/s at most: it shares the disk.
fn write(path: &str) -> ! {
    // O_DIRECT wants memory that is aligned to blocks.
    let memory = vec![7_u8; CHUNK + 4096];
    let offset = memory.as_ptr().align_offset(4096);
    let chunk = &memory[offset..offset + CHUNK];
    let direct = nix::libc::O_DIRECT;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .custom_flags(direct)
        .open(path)
        .expect("opened");
    loop {
        file.seek(SeekFrom::Start(0)).expect("sought");
        for _ in 0..64 {
            file.write_all(chunk).expect("written");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// By the page cache, round and round.
fn read(path: &str) -> ! {
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut file = std::fs::File::open(path).expect("opened");
        while file.read(&mut chunk).expect("read") > 0 {
            thread::sleep(Duration::from_micros(500));
        }
    }
}
