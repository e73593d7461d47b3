//! A report for a CI: a test case for each threshold outside fault windows, each fault, each
//! check, and the verdict.

use crate::judge::summary::{CheckVerdict, ScopeName, Summary, ThresholdVerdict, Verdict};

/// What a test case came to.
enum Ending {
    Passed,
    Failure(String),
    Error(String),
    Skipped(String),
}

pub(super) fn junit(summary: &Summary) -> String {
    let cases = cases(summary);
    let number = |wanted: fn(&Ending) -> bool| cases.iter().filter(|(_, e)| wanted(e)).count();
    let suite = escaped(&format!("raftbench {} on {}", summary.profile, summary.target));
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text.push_str(&format!(
        "<testsuite name=\"{suite}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">\n",
        cases.len(),
        number(|ending| matches!(ending, Ending::Failure(_))),
        number(|ending| matches!(ending, Ending::Error(_))),
        number(|ending| matches!(ending, Ending::Skipped(_)))
    ));
    for (name, ending) in &cases {
        let opening = format!("  <testcase classname=\"{suite}\" name=\"{}\"", escaped(name));
        let (tag, message) = match ending {
            Ending::Passed => {
                text.push_str(&format!("{opening}/>\n"));
                continue;
            }
            Ending::Failure(message) => ("failure", message),
            Ending::Error(message) => ("error", message),
            Ending::Skipped(message) => ("skipped", message),
        };
        let message = escaped(message);
        text.push_str(&format!("{opening}>\n    <{tag} message=\"{message}\"/>\n  </testcase>\n"));
    }
    text.push_str("</testsuite>\n");
    text
}

fn cases(summary: &Summary) -> Vec<(String, Ending)> {
    let reasons = summary.reasons.join("; ");
    let verdict = match summary.verdict {
        Verdict::Pass => Ending::Passed,
        Verdict::Fail => Ending::Failure(reasons),
        Verdict::Inconclusive => Ending::Error(format!("inconclusive: {reasons}")),
        Verdict::Invalid => Ending::Error(format!("invalid: {reasons}")),
    };
    let mut cases = vec![("verdict".to_owned(), verdict)];
    for row in summary.thresholds.iter().filter(|row| row.scope == ScopeName::OutsideFaults) {
        let seen = row.observed.map_or("nothing".to_owned(), super::figures::reading);
        let against = format!("{seen} {}, limit {}", row.unit, row.limit);
        let ending = match row.verdict {
            ThresholdVerdict::Pass => Ending::Passed,
            ThresholdVerdict::Fail => Ending::Failure(against),
            ThresholdVerdict::NoData => Ending::Skipped(format!("no data: {against}")),
        };
        cases.push((row.metric.clone(), ending));
    }
    for fault in &summary.faults {
        let ending = match fault.effective {
            true => Ending::Passed,
            false => Ending::Error(format!("did not bite: {}", fault.proof)),
        };
        cases.push((format!("{} {} {}", fault.id, fault.kind, fault.target), ending));
    }
    let checks = &summary.checks;
    let check = checks.linearizability.as_ref();
    let violations = check.map(|check| &check.violations).into_iter().flatten();
    let violations: Vec<String> = violations.map(|violation| violation.to_string()).collect();
    for (name, verdict, found) in [
        ("audit", checks.audit, &checks.findings),
        ("linearizable", checks.linearizable, &violations),
    ] {
        let ending = match verdict {
            CheckVerdict::Pass => Ending::Passed,
            CheckVerdict::Fail => Ending::Failure(found.join("; ")),
            CheckVerdict::Undecided => Ending::Error("undecided".into()),
            CheckVerdict::Skipped => Ending::Skipped("not checked".into()),
        };
        cases.push((name.to_owned(), ending));
    }
    cases
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no other control characters.
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}
