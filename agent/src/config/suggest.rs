//! The nearest known name.

/// Similarity (Jaro-Winkler) from which a name counts as meant; below it a suggestion would mislead.
const MEANT: f64 = 0.8;

/// The known name that was meant by `name`, if one is near. Case and dashes do not count.
pub(super) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&name, &known.replace('-', "_")), known))
        .filter(|(similarity, _)| *similarity >= MEANT)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// The allowed values, after the one that `name` is near to.
pub(super) fn allowed(name: Option<&str>, allowed: &[&str]) -> String {
    let list = format!("allowed: {}", allowed.join(", "));
    match name.and_then(|name| nearest(name, allowed.iter().copied())) {
        Some(meant) => format!("did you mean `{meant}`? {list}"),
        None => list,
    }
}
