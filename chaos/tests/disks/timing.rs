//! That a disk takes its time. Lower bounds are the model's; what a busy machine adds is bounded by
//! quartiles only, generously.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use chaos::lab::disks::{Burst, DiskSpec, Latency, Rate};
use rustix::fs::OFlags;

use crate::stage::{Stage, open, spec};

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

pub(crate) fn a_sync_takes_what_the_model_says(stage: &Stage) {
    let sync = Latency::new(vec![(0.0, 2.0), (0.5, 4.0), (0.9, 8.0), (1.0, 12.0)]).expect("rises");
    let disk = stage.disk(DiskSpec { sync: sync.clone(), ..spec() });
    let file = open(&disk.path("file"), OFlags::empty());
    let mut took: Vec<f64> = (0..400_u64)
        .map(|number| {
            file.write_all_at(&[number as u8; 700], number * 700).expect("written");
            let began = Instant::now();
            file.sync_data().expect("synced");
            ms(began)
        })
        .collect();
    took.sort_by(f64::total_cmp);
    let figures = disk.figures(&disk.name).expect("told");
    assert_eq!(figures.sync_service.count, 400);
    assert_eq!(figures.synced_bytes, 400 * 700);
    for (share, by_server) in [
        (0.25, figures.sync_service.p25_ms),
        (0.5, figures.sync_service.p50_ms),
        (0.75, figures.sync_service.p75_ms),
    ] {
        let wanted = sync.quantile_ms(share);
        for seen in [took[(share * 400.0) as usize], by_server] {
            // 400 draws: a quartile is within 12 % of the model's; and a busy machine is late.
            let fits = (0.88 * wanted..1.12 * wanted + 1.0).contains(&seen);
            assert!(fits, "{share}: {seen} ms, wanted {wanted} ms");
        }
    }
}

pub(crate) fn direct_writes_are_served_at_once(stage: &Stage) {
    let write = Latency::constant(20.0).expect("fits");
    let disk = stage.disk(DiskSpec { write, concurrency: 4, ..spec() });
    let file = open(&disk.path("file"), OFlags::DIRECT);
    file.write_all_at(&[0; 16 * 4096], 0).expect("written");
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..16_u64 {
            let file = &file;
            scope.spawn(move || file.write_all_at(&[number as u8; 4096], number * 4096));
        }
    });
    let took = ms(began);
    // Four at once: four rounds; one after the other it would be 320 ms.
    assert!((79.0..300.0).contains(&took), "{took} ms");
}

pub(crate) fn dsync_writes_are_syncs(stage: &Stage) {
    for flags in [OFlags::DSYNC, OFlags::DSYNC | OFlags::DIRECT] {
        let disk = stage.disk(spec());
        let file = open(&disk.path("file"), flags);
        let before = disk.figures(&disk.name).expect("told").syncs;
        let began = Instant::now();
        for number in 0..20_u64 {
            file.write_all_at(&[1; 512], number * 512).expect("written");
        }
        let took = ms(began);
        let syncs = disk.figures(&disk.name).expect("told").syncs - before;
        assert_eq!(syncs, 20, "{flags:?}");
        assert!(took >= 20.0 * 2.7, "{flags:?}: {took} ms");
    }
}

pub(crate) fn requests_per_second_are_limited(stage: &Stage) {
    let iops = Some(Rate { per_second: 200.0, burst: None });
    let sync = Latency::constant(0.5).expect("fits");
    let disk = stage.disk(DiskSpec { sync, iops, ..spec() });
    let file = open(&disk.path("file"), OFlags::empty());
    let began = Instant::now();
    for _ in 0..100 {
        file.write_all_at(&[1; 512], 0).expect("written");
        file.sync_data().expect("synced");
    }
    let took = ms(began);
    // At 200 a second, but for what is taken at once.
    assert!((485.0..1500.0).contains(&took), "{took} ms");
}

pub(crate) fn burst_credits_run_out(stage: &Stage) {
    let burst = Burst { per_second: 2000.0, credits: 1000.0, starts_with: 200.0 };
    let iops = Some(Rate { per_second: 50.0, burst: Some(burst) });
    let write = Latency::constant(0.05).expect("fits");
    let disk = stage.disk(DiskSpec { write, iops, ..spec() });
    let file = open(&disk.path("file"), OFlags::DIRECT);
    let mut each_half_second = vec![0];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        file.write_all_at(&[1; 512], 0).expect("written");
        let half = (began.elapsed().as_millis() / 500) as usize;
        each_half_second.resize(each_half_second.len().max(half + 1), 0);
        each_half_second[half] += 1;
    }
    let credits = disk.figures(&disk.name).expect("told").burst_credits.expect("it has some");
    println!("writes each half second: {each_half_second:?}; {credits} credits left");
    assert!(each_half_second[0] >= 150, "{each_half_second:?}");
    for later in &each_half_second[2..6] {
        assert!((15..=35).contains(later), "{each_half_second:?}");
    }
    assert!(credits < 5.0, "{credits}");
}
