//! Plain tables for people.

use std::io::{self, Write};

use crate::model::printable;

/// Writes rows under a heading, each column as wide as its widest cell, the last one as it is.
pub(super) fn write<const N: usize>(out: &mut dyn Write, heading: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable(cell).to_string())).collect();
    let mut widths = heading.map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |cells: [&str; N]| -> io::Result<()> {
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            match index + 1 == N {
                true => writeln!(out, "{cell}")?,
                false => write!(out, "{cell:width$}  ")?,
            }
        }
        Ok(())
    };
    line(heading)?;
    rows.iter().try_for_each(|row| line(row.each_ref().map(String::as_str)))
}
