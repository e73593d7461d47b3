//! The drawing of a violation: well-formed whatever the names hold, and nothing stands in another's
//! way or outside.

mod generate;

use std::collections::BTreeMap;

use generate::Shape;
use history::linearizability::{Limits, Violation, check};
use history::{Kind, Operation, Outcome, timeline};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const NAMES: [&str; 5] =
    ["k", "<&\">'", "\u{1}\u{fffe}\n", "raftbench/660f78a02802e-c3e7d060/00000209", "é🙂"];

/// Violations of all sizes, with names of all kinds.
fn violations() -> Vec<Violation> {
    let mut all = Vec::new();
    for seed in 0..400 {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let shape = Shape {
            unknown: 0.2,
            mix: [1.0, 1.0, 0.5, 0.3],
            values: [None, Some(3)][seed as usize % 2],
            ..Shape::of(60, 1, 6)
        };
        let mut history = shape.operations(seed);
        let values: Vec<Option<String>> = history.iter().map(|op| op.value.clone()).collect();
        for operation in history.iter_mut().filter(|op| op.op == Kind::Get) {
            if operation.outcome == Outcome::Ok && rng.random_bool(0.2) {
                operation.value = values.choose(&mut rng).expect("some").clone();
            }
        }
        let name = NAMES[seed as usize % NAMES.len()].repeat(rng.random_range(1..40));
        let renamed = history.into_iter().map(|operation| Operation {
            key: name.clone(),
            value: operation.value.map(|value| format!("{value}{name}")),
            expected: operation.expected.map(|value| format!("{value}{name}")),
            node: Some(name.clone()),
            ..operation
        });
        all.extend(check(renamed, &Limits::default()).violations);
    }
    let sizes: BTreeMap<u64, usize> = all.iter().fold(BTreeMap::new(), |mut sizes, violation| {
        *sizes.entry(violation.size).or_default() += 1;
        sizes
    });
    assert!(sizes.len() >= 5 && all.len() > 200, "{sizes:?}");
    all
}

#[test]
fn every_violation_is_drawn_whole() {
    for violation in violations() {
        let drawing = timeline(std::slice::from_ref(&violation));
        let elements = elements(&drawing);
        let (width, height) = (number(&elements[0], "width"), number(&elements[0], "height"));
        let mut rows: BTreeMap<(i64, i64), f64> = BTreeMap::new();
        let mut texts: Vec<&Element> =
            elements.iter().filter(|element| element.name == "text").collect();
        texts.sort_by(|a, b| number(a, "x").total_cmp(&number(b, "x")));
        for text in texts {
            // About the width of a letter in each of the fonts.
            let letter = match text.fields.get("class").map(String::as_str) {
                None => 7.4,
                Some("head") => 10.5,
                Some("who") => 7.0,
                Some("tick" | "note") => 6.4,
                Some(_) => 7.9,
            };
            let long = letter * text.inside.chars().count() as f64;
            let x = number(text, "x");
            let start = match text.fields.get("text-anchor").map(String::as_str) {
                Some("end") => x - long,
                Some("middle") => x - long / 2.0,
                _ => x,
            };
            let end = start + long;
            assert!(start >= 0.0 && end <= width, "{start} to {end}: {text:?}");
            let y = number(text, "y");
            assert!(y > 0.0 && y < height, "{text:?}");
            // No two texts of one line, left to right, stand in one another's way.
            let row = rows.entry((y as i64, 0)).or_insert(f64::MIN);
            assert!(*row <= start + 1.0, "{text:?} begins at {start}, before {row}");
            *row = end;
        }
        let bars = elements.iter().filter(|element| element.fields.contains_key("rx"));
        // One for each operation, and the culprit's lane.
        assert_eq!(bars.count(), violation.operations.len() + 1);
    }
}

#[test]
fn the_order_of_bars_is_the_order_of_time() {
    for violation in violations() {
        let drawing = timeline(std::slice::from_ref(&violation));
        let mut places: Vec<(i64, f64)> = Vec::new();
        let elements = elements(&drawing);
        let bars: Vec<_> = elements
            .iter()
            .filter(|bar| bar.name == "rect" && bar.fields.get("height").is_some_and(|h| h == "14"))
            .collect();
        assert_eq!(bars.len(), violation.operations.len());
        for (bar, witness) in bars.into_iter().zip(&violation.operations) {
            let start = number(bar, "x");
            places.push((witness.operation.invoke_ns, start));
            if let Some(complete_ns) = witness.operation.complete_ns {
                places.push((complete_ns, start + number(bar, "width")));
            }
        }
        places.sort_by(|a, b| (a.0, a.1).partial_cmp(&(b.0, b.1)).expect("numbers"));
        for pair in places.windows(2) {
            let ((before, left), (after, right)) = (pair[0], pair[1]);
            let apart = right - left;
            assert!(if before == after { apart.abs() < 0.2 } else { apart > 1.0 }, "{pair:?}");
        }
    }
}

#[test]
fn the_same_violations_give_the_same_bytes() {
    let all = violations();
    assert_eq!(timeline(&all[..5]), timeline(&all[..5]));
}

#[derive(Debug)]
struct Element {
    name: String,
    fields: BTreeMap<String, String>,
    /// Its text, entities undone.
    inside: String,
}

fn number(element: &Element, field: &str) -> f64 {
    element.fields[field].parse().unwrap_or_else(|_| panic!("{field} of {element:?}"))
}

/// Reads what the drawing uses of XML, and panics at what is not well formed.
fn elements(drawing: &str) -> Vec<Element> {
    let mut elements: Vec<Element> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut rest = drawing;
    while let Some(start) = rest.find('<') {
        if let Some(inner) = open.last() {
            elements[*inner].inside.push_str(&undone(&rest[..start]));
        }
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            let closed = open.pop().expect("something is open");
            assert_eq!(elements[closed].name, name, "closed in order");
            continue;
        }
        let (tag, closed) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let (name, mut fields) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut element =
            Element { name: name.to_owned(), fields: BTreeMap::new(), inside: String::new() };
        while let Some((field, value)) = fields.trim_start().split_once("=\"") {
            let (value, others) = value.split_once('"').expect("a value ends");
            element.fields.insert(field.to_owned(), undone(value));
            fields = others;
        }
        assert!(fields.trim().is_empty(), "{tag}");
        elements.push(element);
        if !closed {
            open.push(elements.len() - 1);
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{drawing}");
    elements
}

fn undone(text: &str) -> String {
    let allowed = |letter: char| !letter.is_control() || letter == '\n';
    assert!(text.chars().all(|letter| allowed(letter) && letter != '\u{fffe}'), "{text:?}");
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (entity, after) = after.split_once(';').expect("an entity ends");
        let known = [("amp", "&"), ("lt", "<"), ("gt", ">"), ("quot", "\"")];
        let (_, letter) = known.iter().find(|(name, _)| *name == entity).expect(entity);
        out += before;
        out += letter;
        rest = after;
    }
    out + rest
}
