//! A report for a page.

use super::{Block, TextTable};

pub(super) fn markdown(blocks: &[Block]) -> String {
    let mut text = String::new();
    let mut in_list = false;
    for block in blocks {
        let item = matches!(block, Block::Item(_));
        if in_list && !item {
            text.push('\n');
        }
        in_list = item;
        match block {
            Block::Headline(line) => text.push_str(&format!("# {}\n\n", escaped(line))),
            Block::Title(title) => text.push_str(&format!("## {}\n\n", escaped(title))),
            Block::Line(line) => text.push_str(&format!("{}\n\n", escaped(line))),
            Block::Item(line) => text.push_str(&format!("- {}\n", escaped(line))),
            Block::Table(rows) => table(&mut text, rows),
        }
    }
    text
}

fn table(text: &mut String, rows: &TextTable) {
    let mut line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    };
    line(&rows.header);
    let rule: Vec<String> = (0..rows.header.len())
        .map(|column| if column == 0 { "---".to_owned() } else { "---:".to_owned() })
        .collect();
    line(&rule);
    rows.rows.iter().for_each(|row| line(row));
    text.push('\n');
}

/// What a page would take for markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '|' | '<' | '>' | '*' | '_' | '`' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}
