//! Card, social security and phone numbers.

use std::ops::Range;

use super::{Class, Sensitivity, follows_word, is_word, stands_alone};

/// Most digits of a number that is looked at: a card has up to 19 (ISO/IEC 7812-1), a phone up to 15 (E.164).
const MAX_DIGITS: usize = 19;
const SSN_WORDS: [&str; 3] = ["ssn", "social", "sozialvers"];
const PHONE_WORDS: [&str; 6] = ["phone", "tel", "mobile", "cell", "fax", "call"];

/// A run of digits with single signs between them.
struct Run {
    range: Range<usize>,
    digits: Vec<u8>,
    /// Length of each group of digits.
    groups: Vec<usize>,
    /// The signs between the groups; two where there are two.
    separators: Vec<Vec<u8>>,
    plus: bool,
    parenthesis: bool,
}

/// Finds them.
pub(super) fn find(text: &str, level: Sensitivity, mut found: impl FnMut(Class, Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(skip) = bytes[at..].iter().position(|byte| byte.is_ascii_digit()) {
        let first = at + skip;
        let run = run(bytes, first);
        at = run.range.end.max(first + 1);
        // Before a parenthesis may stand a word, as in `call(...)`.
        let own = if run.parenthesis { first..run.range.end } else { run.range.clone() };
        // Six digits are no number of anybody; most runs end here.
        if run.digits.len() < 7 || !stands_alone(text, &own) {
            continue;
        }
        if let Some((class, range)) = classify(text, &run, level) {
            found(class, range);
        }
    }
}

/// The run whose first digit is at `first`.
fn run(bytes: &[u8], first: usize) -> Run {
    let before = |back: usize| first.checked_sub(back).map(|at| bytes[at]);
    let parenthesis = before(1) == Some(b'(');
    let plus = before(1) == Some(b'+') || (parenthesis && before(2) == Some(b'+'));
    let start = first - usize::from(parenthesis) - usize::from(plus);
    let (mut digits, mut groups, mut separators) = (Vec::new(), vec![0], Vec::<Vec<u8>>::new());
    let mut end = first;
    loop {
        match bytes.get(end) {
            Some(digit) if digit.is_ascii_digit() => {
                digits.push(*digit - b'0');
                if let Some(last) = groups.last_mut() {
                    *last += 1;
                }
                end += 1;
            }
            _ => {
                // Up to two signs, then a digit again: `555-0100`, `(555) 0100`.
                let signs = bytes[end..].iter().take(2).take_while(|byte| b" -.()/".contains(byte)).count();
                let next = bytes.get(end + signs).is_some_and(u8::is_ascii_digit);
                if signs == 0 || !next || digits.len() > 2 * MAX_DIGITS {
                    break;
                }
                separators.push(bytes[end..end + signs].to_vec());
                groups.push(0);
                end += signs;
            }
        }
    }
    Run { range: start..end, digits, groups, separators, plus, parenthesis }
}

fn classify(text: &str, run: &Run, level: Sensitivity) -> Option<(Class, Range<usize>)> {
    let whole = run.range.clone();
    let from_digit = whole.start + usize::from(run.plus) + usize::from(run.parenthesis)..whole.end;
    let uniform = run.separators.windows(2).all(|pair| pair[0] == pair[1]);
    let separator = run.separators.first().map(Vec::as_slice);
    let grouped = uniform && matches!(separator, None | Some(b" " | b"-"));
    if grouped && is_card(&run.digits, &run.groups) {
        return Some((Class::Card, from_digit));
    }
    let ssn_shape = run.groups == [3, 2, 4] && uniform && matches!(separator, Some(b" " | b"-" | b"."));
    let bare = run.groups.len() == 1 && !run.plus;
    let named_ssn = bare && run.digits.len() == 9 && follows_word(text, whole.start, &SSN_WORDS);
    if (ssn_shape || named_ssn) && is_ssn(&run.digits) {
        return Some((Class::Ssn, from_digit));
    }
    if level >= Sensitivity::Medium && is_phone(text, run) {
        return Some((Class::Phone, whole));
    }
    if level >= Sensitivity::High && bare && run.digits.len() >= 9 {
        return Some((Class::Number, from_digit));
    }
    // A card among other numbers, as in a list.
    card_within(text.as_bytes(), run).map(|range| (Class::Card, range))
}

/// Luhn's algorithm (ISO/IEC 7812-1 Annex B).
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) => digit / 5 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Whether these digits, in these groups, are a card of a known issuer with the right check digit.
fn is_card(digits: &[u8], groups: &[usize]) -> bool {
    let prefix = |length: usize| digits.iter().take(length).fold(0u32, |number, digit| number * 10 + u32::from(*digit));
    let length = digits.len();
    let issued = match prefix(1) {
        // Visa
        4 => matches!(length, 13 | 16 | 19),
        // Mastercard, Maestro
        5 => {
            (51..=55).contains(&prefix(2)) && length == 16
                || prefix(1) == 5 && (12..=19).contains(&length) && matches!(prefix(2), 50 | 56..=58)
        }
        2 => (2221..=2720).contains(&prefix(4)) && length == 16,
        // American Express; Diners; JCB
        3 => match prefix(2) {
            34 | 37 => length == 15,
            30 | 36 | 38 | 39 => (14..=19).contains(&length),
            35 => (16..=19).contains(&length),
            _ => false,
        },
        // Discover, Maestro, UnionPay
        6 => (16..=19).contains(&length),
        _ => false,
    };
    let shaped = match groups {
        [_] => true,
        [4, 6, 5] | [4, 6, 4] => true,
        [first @ .., last] => first.iter().all(|group| *group == 4) && *last <= 4,
        [] => false,
    };
    issued && shaped && luhn(digits) && !digits.iter().all(|digit| *digit == digits[0])
}

/// A single group of the run that is a card by itself.
fn card_within(bytes: &[u8], run: &Run) -> Option<Range<usize>> {
    if run.groups.len() < 2 {
        return None;
    }
    let mut at = run.range.start + usize::from(run.plus) + usize::from(run.parenthesis);
    let mut taken = 0;
    for (number, group) in run.groups.iter().enumerate() {
        let digits = &run.digits[taken..taken + group];
        let range = at..at + group;
        if is_card(digits, &[*group]) && !bytes.get(range.end).is_some_and(|byte| is_word(*byte)) {
            return Some(range);
        }
        taken += group;
        at = range.end + run.separators.get(number).map_or(0, Vec::len);
    }
    None
}

/// Whether nine digits can be a social security number: no area 000, 666 or from 900 on, no group 00, no serial 0000 (SSA, POMS RM 10201.035).
fn is_ssn(digits: &[u8]) -> bool {
    let number = |range: Range<usize>| digits[range].iter().fold(0u32, |number, digit| number * 10 + u32::from(*digit));
    digits.len() == 9 && !matches!(number(0..3), 0 | 666 | 900..) && number(3..5) != 0 && number(5..9) != 0
}

/// Whether it is written as phone numbers are: with a plus; in the groups of North America; or after a word that says so.
fn is_phone(text: &str, run: &Run) -> bool {
    let count = run.digits.len();
    let slashes = run.separators.iter().flatten().any(|sign| *sign == b'/');
    if run.plus {
        return (8..=15).contains(&count);
    }
    // North American Numbering Plan: neither area nor exchange begins with 0 or 1.
    let north_american = |digits: &[u8], groups: &[usize]| groups == [3, 3, 4] && digits[0] >= 2 && digits[3] >= 2;
    let written = north_american(&run.digits, &run.groups)
        || (run.groups.first() == Some(&1) && run.digits[0] == 1 && north_american(&run.digits[1..], &run.groups[1..]));
    if written {
        return true;
    }
    let named = follows_word(text, run.range.start, &PHONE_WORDS);
    named && (7..=15).contains(&count) && !slashes
}
