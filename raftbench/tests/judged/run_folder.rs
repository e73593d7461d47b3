//! What a run leaves behind, and what is shown of it.

use std::path::Path;

use history::Kind;
use loadgen::record::ReadValue;
use raftbench::compare::{Side, compare};
use raftbench::evidence::Observed;
use raftbench::folder::RunFolder;
use raftbench::judge::judge;
use raftbench::report::{Format, report};
use serde_json::Value;

use crate::hand_made::{observed, plan};
use crate::schema;

const FORMATS: [Format; 4] = [Format::Table, Format::Markdown, Format::Json, Format::Junit];

/// Writes a run into `at`, as `run` does.
fn written(at: &Path, flags: &[&str], observed: &Observed) -> RunFolder {
    let plan = plan(flags);
    let folder = RunFolder::create(at).expect("a new folder");
    let arguments = ["run", "/somewhere/private/p.toml", "--out", "/elsewhere/out"];
    let summary = judge(&plan, observed);
    folder.write(&plan, observed, &summary, &arguments.map(str::to_owned)).expect("written");
    folder
}

fn reports(folder: &RunFolder) -> Vec<String> {
    FORMATS.iter().map(|format| report(folder, *format).expect("a report")).collect()
}

#[test]
fn the_same_folder_gives_the_same_bytes_wherever_it_lies() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = written(&dir.path().join("run"), &[], &observed());
    let first = reports(&folder);
    assert_eq!(reports(&folder), first);
    let moved = dir.path().join("archive");
    std::fs::rename(folder.path(), &moved).expect("moved");
    assert_eq!(reports(&RunFolder::open(&moved).expect("a run folder")), first);
}

#[test]
fn a_summary_fits_its_schema() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/summary.schema.json");
    let text = std::fs::read_to_string(path).expect("the schema");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let dir = tempfile::tempdir().expect("a directory");
    let mut bare = observed();
    bare.samples.clear();
    bare.events.clear();
    bare.faults[0].healed_ns = None;
    let read = ["checks.linearizable=true", "load.mix={put=0.5,get=0.5}"];
    let runs: [(&str, &[&str], Observed); 3] =
        [("full", &[], observed()), ("bare", &[], bare), ("stale", &read, stale())];
    for (name, flags, observed) in runs {
        let folder = written(&dir.path().join(name), flags, &observed);
        let summary = serde_json::from_str(&folder.summary_text().expect("text")).expect("JSON");
        assert_eq!(schema::problems(&schema, &schema, &summary), Vec::<String>::new(), "{name}");
    }
    // The validator can say no.
    let wrong = serde_json::json!({ "schema": 2, "verdict": "splendid" });
    assert!(schema::problems(&schema, &schema, &wrong).len() >= 3);
}

#[test]
fn a_folder_holds_the_promised_files_and_no_absolute_path() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = written(&dir.path().join("run"), &[], &observed());
    let read = |name: &str| std::fs::read_to_string(folder.file(name)).expect(name);
    for name in ["manifest.toml", "summary.json", "faults.jsonl", "events.jsonl", "metrics.jsonl"] {
        let text = read(name);
        assert!(!text.contains("/somewhere") && !text.contains("/elsewhere"), "{name}");
        assert!(!text.contains(&*dir.path().to_string_lossy()), "{name}");
    }
    let manifest: toml::Table = read("manifest.toml").parse().expect("TOML");
    assert_eq!(manifest["run"]["seed"].as_integer(), Some(7));
    assert_eq!(manifest["host"]["data_filesystem"].as_str(), Some("ext4"));
    assert_eq!(manifest["profile"]["load"]["rate_per_second"].as_float(), Some(1000.0));
    let rows: Vec<String> = read("intervals.csv").lines().map(str::to_owned).collect();
    assert_eq!(rows.len(), 1 + 200);
    assert!(rows[0].ends_with("latency_max_us,leader,term"), "{}", rows[0]);
    assert!(
        rows[1].starts_with("0,100,100,0,0,2000,") && rows[1].ends_with(",n1,2"),
        "{}",
        rows[1]
    );
    assert!(rows[85].starts_with("8400,100,0,0,100,") && rows[85].ends_with(",,2"), "{}", rows[85]);
    assert!(rows[101].ends_with(",n2,3"), "{}", rows[101]);
    assert_eq!(history::read(&folder.file("history.jsonl.zst")).expect("a history").len(), 20_000);
    assert!(folder.file("load.hlog").is_file());
}

/// With one stale read.
fn stale() -> Observed {
    let mut observed = observed();
    let read = &mut observed.load.ops[5000];
    (read.kind, read.read) = (Kind::Get, Some(ReadValue::Written(3000)));
    observed
}

#[test]
fn what_is_not_linearizable_is_told_in_every_report_and_drawn() {
    let dir = tempfile::tempdir().expect("a directory");
    let read = ["checks.linearizable=true", "load.mix={put=0.5,get=0.5}"];
    let folder = written(&dir.path().join("run"), &read, &stale());
    let table = report(&folder, Format::Table).expect("a report");
    let table = table.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(table.contains("linearizable: FAIL (20,000 operations on 1,000 keys)"), "{table}");
    assert!(table.contains("- drawn in violation.svg"), "{table}");
    let junit = report(&folder, Format::Junit).expect("a report");
    assert!(junit.contains("<failure message=\"key `hand/00000000`: get (line 5001) "), "{junit}");
    let drawing = std::fs::read_to_string(folder.file("violation.svg")).expect("a drawing");
    assert!(drawing.contains("put 00000000=0000000000000fa0"), "{drawing}");
    // And where nothing is wrong, nothing is drawn.
    let sound = written(&dir.path().join("sound"), &[], &observed());
    assert!(!sound.file("violation.svg").exists());
}

#[test]
fn a_report_leads_with_the_verdict_and_fits_the_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut observed = observed();
    observed.faults[0].proof = "seen to have ended, in so many words, ".repeat(20);
    observed.load.errors = vec!["an error with a long text ".repeat(12)];
    let folder = written(&dir.path().join("run"), &[], &observed);
    let table = report(&folder, Format::Table).expect("a report");
    assert!(table.starts_with("PASS: 5 of 5 thresholds hold"), "{table}");
    let widest = table.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?} columns\n{table}");
    assert!(report(&folder, Format::Markdown).expect("a report").starts_with("# PASS: "));
}

#[test]
fn the_steps_of_a_write_are_shown_where_the_target_times_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let timed = written(&dir.path().join("timed"), &[], &observed());
    let steps = timed.summary().expect("one").write_steps;
    let names: Vec<_> = steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(names, ["queue", "log", "replicate", "commit", "apply", "answer"]);
    let table = report(&timed, Format::Table).expect("a report");
    let row = table.lines().find(|line| line.contains("replicate")).expect("a row");
    // All values of these histograms lie between 1 and 5 ms.
    assert_eq!(row.matches("1 to 5").count(), 2, "{row}");
    let page = report(&timed, Format::Markdown).expect("a report");
    assert!(page.contains("## Where a write's time goes"), "{page}");

    let mut untimed = observed();
    for sample in &mut untimed.samples {
        sample.histograms.retain(|name, _| !name.starts_with("write_"));
    }
    let untimed = written(&dir.path().join("untimed"), &[], &untimed);
    assert!(!untimed.summary_text().expect("one").contains("write_steps"));
    assert!(!report(&untimed, Format::Table).expect("a report").contains("Where a write's"));
}

#[test]
fn unsafe_settings_are_the_first_line_of_every_report() {
    let dir = tempfile::tempdir().expect("a directory");
    let flags = ["cluster.bench_node.unsafe_no_fsync=true"];
    let folder = written(&dir.path().join("run"), &flags, &observed());
    for format in [Format::Table, Format::Markdown] {
        let text = report(&folder, format).expect("a report");
        let first = text.lines().next().expect("a line").replace('\\', "");
        assert!(first.contains("UNSAFE: unsafe_no_fsync = true"), "{first}");
    }
}

#[test]
fn junit_counts_what_failed() {
    let dir = tempfile::tempdir().expect("a directory");
    let flags = ["expect.max_outage_ms=100", "limits.commit_p99_ms=1"];
    let folder = written(&dir.path().join("run"), &flags, &observed());
    let text = report(&folder, Format::Junit).expect("a report");
    assert!(text.contains("failures=\"2\" errors=\"0\" skipped=\"1\""), "{text}");
    assert!(text.contains("name=\"verdict\"") && text.contains("name=\"f1 kill leader (n1)\""));
}

#[test]
fn a_folder_that_holds_something_is_refused_and_so_is_one_that_is_no_run() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("mine.txt"), "mine").expect("written");
    let error = RunFolder::create(dir.path()).expect_err("not empty").to_string();
    assert!(error.contains("is not empty") && error.contains("--out"), "{error}");
    let error = RunFolder::open(dir.path()).expect_err("no run").to_string();
    assert!(error.contains("is not a run folder"), "{error}");
}

#[test]
fn a_comparison_shows_differences_and_concludes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let side = |name: &str, flags: &[&str]| {
        let folder = written(&dir.path().join(name), flags, &observed());
        Side { summary: folder.summary().expect("one"), profile: folder.profile().expect("one") }
    };
    let text = compare(&side("a", &[]), &side("b", &["cluster.bench_node.pre_vote=false"]));
    assert!(text.contains("cluster.bench_node.pre_vote"), "{text}");
    assert!(text.contains("longest outage") && text.contains("1,200"), "{text}");
    assert!(text.contains("One run on each side decides nothing"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}
