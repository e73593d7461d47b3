//! A report for a terminal: tables and lines that fit [`COLUMNS`].

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::peaker::Priority;
use tabled::settings::{Alignment, Style, Width};

use super::{Block, TextTable};

/// How wide a line may be.
pub(crate) const COLUMNS: usize = 100;

pub(super) fn terminal(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        match block {
            Block::Headline(line) => wrap(&mut text, "", "    ", line),
            Block::Title(title) => text.push_str(&format!("\n{title}\n")),
            Block::Line(line) => wrap(&mut text, "  ", "  ", line),
            Block::Item(line) => wrap(&mut text, "  - ", "    ", line),
            Block::Table(rows) => text.push_str(&table(rows)),
        }
    }
    text
}

fn table(rows: &TextTable) -> String {
    let mut builder = Builder::default();
    builder.push_record(&rows.header);
    for row in &rows.rows {
        builder.push_record(row);
    }
    let mut table = builder.build();
    table
        .with(Style::rounded())
        .modify(Columns::new(1..), Alignment::right())
        .modify(Columns::first(), Alignment::left())
        .with(Width::wrap(COLUMNS).keep_words(true).priority(Priority::max(true)));
    format!("{table}\n")
}

/// Words, on lines that are not too long; a longer word has its own.
fn wrap(text: &mut String, first: &str, following: &str, line: &str) {
    let mut current = first.to_owned();
    let mut empty = true;
    for word in line.split_whitespace() {
        if !empty && current.chars().count() + 1 + word.chars().count() > COLUMNS {
            text.push_str(&current);
            text.push('\n');
            current = following.to_owned();
            empty = true;
        }
        if !empty {
            current.push(' ');
        }
        current.push_str(word);
        empty = false;
    }
    text.push_str(&current);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_wrap_under_their_mark() {
        let mut text = String::new();
        wrap(&mut text, "  - ", "    ", &"word ".repeat(30));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("  - word") && lines[1].starts_with("    word"));
        assert!(lines.iter().all(|line| line.len() <= COLUMNS));
    }
}
