//! Answers of either engine: rows of texts, as the simple and the text protocol send them, read by column name.

use std::{str::FromStr, sync::Arc};

/// An answer is not of the shape that its question expects. It never shows the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` of the answer {reason}")]
pub(super) struct Malformed {
    column: String,
    reason: &'static str,
}

/// Rows of one answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    columns: &'a [String],
    values: &'a [Option<String>],
}

impl Rows {
    /// Without rows. MySQL writes the names of columns as it likes, so they are in lower case here.
    pub(super) fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Rows {
        Rows { columns: columns.into_iter().map(str::to_ascii_lowercase).collect(), rows: Vec::new() }
    }

    /// Adds a row; `None` is NULL.
    pub(super) fn push(&mut self, values: Vec<Option<String>>) {
        self.rows.push(values);
    }

    /// All rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row { columns: &self.columns, values })
    }

    /// The first row.
    pub(super) fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }
}

impl<'a> Row<'a> {
    /// The text of a column; `None` for NULL.
    pub(super) fn text(&self, column: &str) -> Result<Option<&'a str>, Malformed> {
        let place = self.columns.iter().position(|own| own == column);
        let value = place.and_then(|place| self.values.get(place));
        value.map(Option::as_deref).ok_or_else(|| self.malformed(column, "is missing"))
    }

    /// The same, shared; `None` also for an empty text.
    pub(super) fn name(&self, column: &str) -> Result<Option<Arc<str>>, Malformed> {
        Ok(self.text(column)?.filter(|text| !text.is_empty()).map(Arc::from))
    }

    /// The value of a column; `None` for NULL.
    pub(super) fn get<T: FromStr>(&self, column: &str) -> Result<Option<T>, Malformed> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| self.malformed(column, "is not of the expected type"))
    }

    /// The number of a column; zero for NULL.
    pub(super) fn number<T: FromStr + Default>(&self, column: &str) -> Result<T, Malformed> {
        Ok(self.get(column)?.unwrap_or_default())
    }

    /// Whether a column is true, as PostgreSQL (`t`) and MySQL (`1`, `YES`, `ON`) write it.
    pub(super) fn flag(&self, column: &str) -> Result<bool, Malformed> {
        let text = self.text(column)?.unwrap_or_default();
        Ok(["t", "true", "1", "yes", "on"].iter().any(|yes| text.eq_ignore_ascii_case(yes)))
    }

    fn malformed(&self, column: &str, reason: &'static str) -> Malformed {
        Malformed { column: column.to_owned(), reason }
    }
}

/// Rows for tests, written as a table: names of columns, then a line of values for each row; `-` is NULL.
#[cfg(test)]
pub(super) fn table(text: &str) -> Rows {
    let mut lines = text.lines().map(str::split_whitespace).filter(|line| line.clone().next().is_some());
    let mut rows = Rows::new(lines.next().into_iter().flatten());
    for line in lines {
        rows.push(line.map(|value| (value != "-").then(|| value.to_owned())).collect());
    }
    rows
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_read_by_name_and_type() {
        let rows = table("Pid STATE calls ratio\n 7 active 18446744073709551615 0.25\n - - - -");
        let row = rows.first().unwrap();
        assert_eq!(row.get::<i32>("pid").unwrap(), Some(7));
        assert_eq!(row.number::<u64>("calls").unwrap(), u64::MAX);
        assert_eq!(row.number::<f64>("ratio").unwrap(), 0.25);
        assert_eq!(row.name("state").unwrap().as_deref(), Some("active"));
        let null = rows.iter().nth(1).unwrap();
        assert_eq!((null.get::<i32>("pid").unwrap(), null.number::<u64>("calls").unwrap()), (None, 0));
        assert!(!null.flag("state").unwrap());
    }

    #[test]
    fn what_does_not_fit_is_named_without_its_value() {
        let rows = table("pid\nhunter2");
        let error = rows.first().unwrap().get::<i32>("pid").unwrap_err().to_string();
        assert_eq!(error, "column `pid` of the answer is not of the expected type");
        assert!(rows.first().unwrap().text("state").unwrap_err().to_string().contains("is missing"));
    }
}
