//! Embeds `profiles/` anew whenever one changes.

fn main() {
    println!("cargo:rerun-if-changed=../profiles");
}
