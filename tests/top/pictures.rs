//! The pictures of the documents: a frame of the screen from a recording, with its colours, as SVG.
//!
//! `cargo xtask pictures` makes them. The test fails where a picture shows what the program does not.

use std::{env, fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result};
use ratatui::{
    buffer::Buffer,
    style::{Color, Modifier},
};
use synprobe::top::Look;
use synprobe_tests::recorded::ensure_same;

use super::frames::{FrameCase, case, drawn};

/// Columns and rows of a picture.
const SIZE: (u16, u16) = (100, 30);

const PICTURES: [FrameCase; 1] = [case("top", "incident-synack-lost-ipv4", 3, "w1")];

/// `docs/pictures/NAME.svg`
fn kept(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/pictures/{name}.svg"))
}

pub fn show_what_the_program_shows() -> Result<()> {
    let bless = env::var_os("SYNPROBE_BLESS").is_some();
    for picture in &PICTURES {
        let app = picture.app(Look {
            ascii: false,
            colour: true,
            attributes: true,
            ..Look::default()
        })?;
        let text = with_escapes(&drawn(&app, SIZE.0, SIZE.1)?);
        let svg = anstyle_svg::Term::new().render_svg(&text);
        let file = kept(picture.name);
        if bless {
            fs::create_dir_all(file.parent().context("a folder")?)?;
            fs::write(file, svg)?;
            continue;
        }
        let wanted = fs::read_to_string(file).context(picture.name)?;
        ensure_same(picture.name, &wanted, &svg)?;
    }
    Ok(())
}

/// The frame as a terminal gets it (ECMA-48, SGR).
fn with_escapes(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut last = String::new();
        for x in 0..buffer.area.width {
            let cell = &buffer[(x, y)];
            let codes = codes(cell.fg, cell.modifier);
            if codes != last {
                let _ = write!(text, "\x1b[0{codes}m");
                last = codes;
            }
            text.push_str(cell.symbol());
        }
        text.truncate(text.trim_end().len());
        text.push_str("\x1b[0m\n");
    }
    text
}

/// `;1;31`
fn codes(colour: Color, modifier: Modifier) -> String {
    let mut codes = String::new();
    let attributes = [
        (Modifier::BOLD, ";1"),
        (Modifier::DIM, ";2"),
        (Modifier::REVERSED, ";7"),
    ];
    for (of, code) in attributes {
        if modifier.contains(of) {
            codes.push_str(code);
        }
    }
    codes.push_str(match colour {
        Color::Red => ";31",
        Color::Green => ";32",
        Color::Yellow => ";33",
        Color::Blue => ";34",
        Color::Magenta => ";35",
        Color::Cyan => ";36",
        _ => "",
    });
    codes
}
