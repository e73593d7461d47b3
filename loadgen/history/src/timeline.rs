//! Draws violations as a timeline, SVG: one lane for each operation, a bar from when it was sent to
//! when its answer came.
//!
//! Invariant: the horizontal order of the bars' ends is the order of time, and equal times stand
//! above one another. Distances are not to scale: what orders operations may be a microsecond
//! between bars of seconds, and must be seen.

use std::fmt::Write;

use crate::linearizability::{Violation, ViolationKind, Witness};
use crate::{Kind, Operation, shorten};

/// One drawing of these violations, one below the other. The same violations give the same bytes.
pub fn timeline(violations: &[Violation]) -> String {
    let mut body = String::new();
    let mut top = MARGIN;
    for (index, violation) in violations.iter().enumerate() {
        if index > 0 {
            let y = top + PANEL_GAP / 2.0;
            let right = WIDTH - MARGIN;
            let _ = writeln!(
                body,
                r##"<line x1="{MARGIN}" y1="{y}" x2="{right}" y2="{y}" stroke="#d0d4d9"/>"##
            );
            top += PANEL_GAP;
        }
        top = Panel::new(violation).draw(top, &mut body);
    }
    for line in LEGEND {
        top += 17.0;
        let _ = writeln!(body, r#"<text class="note" x="{MARGIN}" y="{top}">{line}</text>"#);
    }
    let height = top + MARGIN;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">
<style>
text {{ font-family: system-ui, "Helvetica Neue", Arial, sans-serif; font-size: 14px; fill: #1f2933; }}
.head {{ font-size: 18px; font-weight: 600; }}
.what {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 13px; paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; }}
.who {{ font-size: 13px; fill: #52606d; }}
.note, .tick {{ font-size: 12px; fill: #52606d; }}
.culprit {{ font-weight: 700; fill: {CULPRIT}; stroke: #fdecea; }}
</style>
<defs>
{gradients}</defs>
<rect width="100%" height="100%" fill="#ffffff"/>
{body}</svg>
"##,
        gradients = [Kind::Put, Kind::Get, Kind::Cas, Kind::Delete].map(gradient).concat(),
    )
}

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 24.0;
const PANEL_GAP: f64 = 44.0;
/// Where the bars' part begins and ends; who sent an operation stands left of it.
const LEFT: f64 = 200.0;
const RIGHT: f64 = WIDTH - MARGIN;
/// Room at the right for bars without an end to fade in.
const FADE: f64 = 90.0;
const LANE: f64 = 48.0;
const BAR: f64 = 14.0;
const CULPRIT: &str = "#b42318";
/// Of a 13 px monospaced letter, of a 15 px one of a sentence, of a 12 px digit: generous.
const LETTER: f64 = 7.9;
/// Letters of a node, of a key in the title, of a key or value in a label, of any in what the pointer
/// shows.
const NODE_LETTERS: usize = 12;
const KEY_LETTERS: usize = 56;
const LABEL_LETTERS: usize = 24;
const LONGEST_TITLE: usize = 500;
const SENTENCE_COLUMNS: usize = 124;
const DIGIT: f64 = 7.2;
const LEGEND: [&str; 2] = [
    "A bar runs from when an operation was sent to when its answer came. One that fades has no answer: it may have \
     taken effect at any time since, or never.",
    "Bars are in the order of time, which is what counts; distances are not to scale. The red one got an answer that \
     no order explains.",
];

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Put => "#2b6cb0",
        Kind::Get => "#2f855a",
        Kind::Cas => "#7b4fb3",
        Kind::Delete => "#946c2f",
    }
}

fn gradient(kind: Kind) -> String {
    let colour = colour(kind);
    format!(
        "<linearGradient id=\"{}\"><stop offset=\"0\" stop-color=\"{colour}\"/><stop offset=\"1\" \
         stop-color=\"{colour}\" stop-opacity=\"0\"/></linearGradient>\n",
        fading(kind)
    )
}

fn fading(kind: Kind) -> &'static str {
    match kind {
        Kind::Put => "fading-put",
        Kind::Get => "fading-get",
        Kind::Cas => "fading-cas",
        Kind::Delete => "fading-delete",
    }
}

/// One violation and where its moments stand.
struct Panel<'a> {
    violation: &'a Violation,
    /// Ascending, each once, with its place.
    moments: Vec<(i64, f64)>,
}

impl<'a> Panel<'a> {
    fn new(violation: &'a Violation) -> Self {
        let operations = || violation.operations.iter().map(|witness| &witness.operation);
        let mut times: Vec<i64> = operations()
            .flat_map(|operation| [Some(operation.invoke_ns), operation.complete_ns])
            .flatten()
            .collect();
        times.sort_unstable();
        times.dedup();
        // A gap's share of the width grows with its logarithm, so that none vanishes.
        let share = |pair: &[i64]| 1.0 + (1.0 + between_ns(pair[0], pair[1]) / 1e3).log10() / 4.0;
        let whole: f64 = times.windows(2).map(share).sum();
        let open = operations().any(|operation| operation.complete_ns.is_none());
        let width = RIGHT - LEFT - 36.0 - if open { FADE } else { 0.0 };
        let mut at = LEFT + 6.0;
        let mut moments = Vec::with_capacity(times.len());
        for (index, time) in times.iter().enumerate() {
            if index > 0 {
                at += share(&times[index - 1..=index]) / whole * width;
            }
            moments.push((*time, at));
        }
        Self { violation, moments }
    }

    fn at(&self, time_ns: i64) -> f64 {
        let place = self.moments.partition_point(|(time, _)| *time < time_ns);
        self.moments.get(place).map_or(RIGHT, |(_, at)| *at)
    }

    /// Draws from `top` on; where it ends.
    fn draw(&self, top: f64, body: &mut String) -> f64 {
        let mut y = self.head(top, body);
        let lanes_top = y;
        let lanes_end = y + LANE * self.violation.operations.len() as f64;
        self.culprits_ends(lanes_top, lanes_end, body);
        for (index, witness) in self.violation.operations.iter().enumerate() {
            self.lane(y, index == self.violation.culprit, witness, body);
            y += LANE;
        }
        self.axis(lanes_end, body)
    }

    fn head(&self, top: f64, body: &mut String) -> f64 {
        let Violation { key, kind, sentence, size, smallest, operations, .. } = self.violation;
        let mut y = top + 18.0;
        let _ = writeln!(
            body,
            r#"<text class="head" x="{MARGIN}" y="{y}">{}</text>"#,
            escaped(&format!("{} on key {}", shape(*kind), shorten(key, KEY_LETTERS)))
        );
        y += 8.0;
        for line in wrapped(sentence, SENTENCE_COLUMNS) {
            y += 19.0;
            let _ = writeln!(body, r#"<text x="{MARGIN}" y="{y}">{}</text>"#, escaped(&line));
        }
        let shown = operations.len() as u64;
        let note = match (shown < *size, smallest) {
            (true, _) => format!("The last {shown} of {size} operations that cannot be ordered."),
            (false, true) => "A smallest set: none of these operations can be left out.".into(),
            (false, false) => {
                "These operations cannot be ordered; a smaller set was not found in time.".into()
            }
        };
        y += 21.0;
        let _ = writeln!(body, r#"<text class="note" x="{MARGIN}" y="{y}">{note}</text>"#);
        y + 14.0
    }

    /// Lines through all lanes where the culprit was sent and answered.
    fn culprits_ends(&self, top: f64, end: f64, body: &mut String) {
        let Some(witness) = self.violation.operations.get(self.violation.culprit) else { return };
        let operation = &witness.operation;
        let lane = top + LANE * self.violation.culprit as f64;
        let (left, width) = (MARGIN - 8.0, WIDTH - 2.0 * MARGIN + 16.0);
        let _ = writeln!(
            body,
            r##"<rect x="{left}" y="{lane}" width="{width}" height="{LANE}" rx="6" fill="#fdecea"/>"##
        );
        for time in [Some(operation.invoke_ns), operation.complete_ns].into_iter().flatten() {
            let x = self.at(time);
            let _ = writeln!(
                body,
                r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{end}" stroke="{CULPRIT}" stroke-opacity="0.55" stroke-dasharray="3 4"/>"##
            );
        }
    }

    fn lane(&self, top: f64, culprit: bool, witness: &Witness, body: &mut String) {
        let Witness { line, operation } = witness;
        let node = operation.node.as_deref().map(|node| shorten(node, NODE_LETTERS) + " · ");
        let (who_y, line_y) = (top + 20.0, top + 36.0);
        let _ = writeln!(
            body,
            "<text class=\"who\" x=\"{MARGIN}\" y=\"{who_y}\">process {}</text>\n\
             <text class=\"note\" x=\"{MARGIN}\" y=\"{line_y}\">{}line {line}</text>",
            operation.process,
            escaped(&node.unwrap_or_default())
        );
        let start = self.at(operation.invoke_ns);
        let end = operation.complete_ns.map_or(RIGHT, |time| self.at(time));
        let (y, width) = (top + 25.0, (end - start).max(3.0));
        let fill = match (operation.complete_ns, culprit) {
            (None, _) => format!("url(#{})", fading(operation.op)),
            (_, true) => CULPRIT.to_owned(),
            (_, false) => colour(operation.op).to_owned(),
        };
        let _ = writeln!(
            body,
            r#"<rect x="{start:.1}" y="{y}" width="{width:.1}" height="{BAR}" rx="3" fill="{fill}"><title>{}</title></rect>"#,
            escaped(&in_full(operation))
        );
        let text = label(operation);
        let fits = start + LETTER * text.chars().count() as f64 <= RIGHT;
        let (x, anchor) = if fits { (start, "start") } else { (RIGHT, "end") };
        let class = if culprit { "what culprit" } else { "what" };
        let y = top + 18.0;
        let _ = writeln!(
            body,
            r#"<text class="{class}" x="{x:.1}" y="{y}" text-anchor="{anchor}">{}</text>"#,
            escaped(&text)
        );
    }

    /// The moments, in time since the first operation was sent; those whose text has no room get a stroke alone.
    fn axis(&self, top: f64, body: &mut String) -> f64 {
        let y = top + 8.0;
        let _ = writeln!(
            body,
            r##"<line x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}" stroke="#9aa5b1"/>"##
        );
        let (Some(first), Some(last)) = (self.moments.first(), self.moments.last()) else {
            return y;
        };
        let (unit, ns) = match between_ns(first.0, last.0) {
            span if span < 1e5 => ("us", 1e3),
            span if span < 1e10 => ("ms", 1e6),
            _ => ("s", 1e9),
        };
        // Texts stand in two rows, and keep away from the one before them in their row.
        let mut free = [LEFT - 40.0; 2];
        let mut last_text = String::new();
        for (time, x) in &self.moments {
            let since = between_ns(first.0, *time) / ns;
            let mut text = format!("{since:.3}");
            if text == last_text {
                text = format!("{since:.6}");
            } else {
                last_text.clone_from(&text);
            }
            let half = DIGIT * text.len() as f64 / 2.0;
            let row = free.iter().position(|free| x - half > *free);
            let stroke = y + row.map_or(5.0, |row| 5.0 + 14.0 * row as f64);
            let _ = writeln!(
                body,
                r##"<line x1="{x:.1}" y1="{y}" x2="{x:.1}" y2="{stroke}" stroke="#9aa5b1"/>"##
            );
            if let Some(row) = row {
                free[row] = x + half + 6.0;
                let text_y = y + 18.0 + 14.0 * row as f64;
                let _ = writeln!(
                    body,
                    r#"<text class="tick" x="{x:.1}" y="{text_y}" text-anchor="middle">{text}</text>"#
                );
            }
        }
        let unit_y = y + 18.0;
        let _ =
            writeln!(body, r#"<text class="tick" x="{MARGIN}" y="{unit_y}">time in {unit}</text>"#);
        y + 40.0
    }
}

fn shape(kind: ViolationKind) -> &'static str {
    match kind {
        ViolationKind::ValueNeverWritten => "Read of a value never written",
        ViolationKind::FailedWriteRead => "Read of a write that failed",
        ViolationKind::ReadBeforeWrite => "Read before the write",
        ViolationKind::StaleRead => "Stale read",
        ViolationKind::LostWrite => "Lost write",
        ViolationKind::LostUpdate => "Lost update",
        ViolationKind::Unordered => "Not linearizable",
    }
}

/// As in `put k=v`.
fn label(operation: &Operation) -> String {
    let name = operation.key.rsplit('/').find(|part| !part.is_empty()).unwrap_or(&operation.key);
    let key = shorten(name, LABEL_LETTERS);
    let text = |value: &Option<String>| {
        value.as_deref().map_or("absent".to_owned(), |value| shorten(value, LABEL_LETTERS))
    };
    let what = match operation.op {
        Kind::Put => format!("put {key}={}", text(&operation.value)),
        Kind::Get => format!("get {key} → {}", text(&operation.value)),
        Kind::Cas => {
            format!("cas {key}: {} → {}", text(&operation.expected), text(&operation.value))
        }
        Kind::Delete => format!("delete {key}"),
    };
    match operation.complete_ns {
        Some(_) => what,
        None => format!("{what}  (unknown)"),
    }
}

/// What the pointer shows: nothing shortened but the very long.
fn in_full(operation: &Operation) -> String {
    let Operation { key, invoke_ns, complete_ns, revision, .. } = operation;
    let text = |value: &Option<String>| {
        value.as_deref().map_or("absent".to_owned(), |v| shorten(v, LONGEST_TITLE))
    };
    let what = match operation.op {
        Kind::Put => format!("put {}", text(&operation.value)),
        Kind::Get => format!("get, returned {}", text(&operation.value)),
        Kind::Cas => format!("cas {} to {}", text(&operation.expected), text(&operation.value)),
        Kind::Delete => "delete".to_owned(),
    };
    let ended = complete_ns.map_or("never".to_owned(), |ns| format!("{ns} ns"));
    let revision = revision.map_or(String::new(), |revision| format!(", revision {revision}"));
    format!(
        "{what}; key {}; sent {invoke_ns} ns, answered {ended}{revision}",
        shorten(key, LONGEST_TITLE)
    )
}

fn between_ns(from: i64, to: i64) -> f64 {
    (i128::from(to) - i128::from(from)) as f64
}

fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("one at least");
        if line.is_empty() {
            *line = word.to_owned();
        } else if line.chars().count() + 1 + word.chars().count() <= columns {
            *line = format!("{line} {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has neither control characters nor these two.
            other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => {
                out.push(' ')
            }
            other => out.push(other),
        }
    }
    out
}
