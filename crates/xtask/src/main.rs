//! `cargo run -p xtask` writes the generated pages anew.

fn main() -> std::io::Result<()> {
    let root = xtask::root();
    for (path, text) in xtask::pages::all() {
        std::fs::write(root.join(&path), text)?;
        println!("wrote {path}");
    }
    Ok(())
}
