//! Suggests what to write instead of an unknown time zone.
//!
//! A wrong guess would shift jobs by hours without anybody noticing. So a name is only suggested if little else can be
//! meant, and an abbreviation, which several places share, is never accepted as a zone.

use crate::invalid::quoted;

/// Common abbreviations, one per line, each with a place that it may mean.
const ABBREVIATIONS: &str = include_str!("abbreviations.txt");
/// The longest word that is taken for an abbreviation.
const ABBREVIATION_LETTERS_MAX: usize = 5;
/// The shortest text for which similar names are suggested.
const SIMILAR_LETTERS_MIN: usize = 6;
/// The longest text for which similar names are suggested.
const SIMILAR_LETTERS_MAX: usize = 64;
/// Areas whose names do not end with a city, such as US/Eastern.
const NOT_OF_CITIES: [&str; 6] = ["Brazil", "Canada", "Chile", "Etc", "Mexico", "US"];
const FORMS: &str = "a name such as Europe/Berlin, an offset such as +05:30, or UTC";

/// Why a text is not a time zone, and what to write instead.
pub(super) fn unknown(text: &str) -> String {
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
    let lower = trimmed.to_lowercase();
    if lower.is_empty() {
        return format!(
            "a time zone cannot be empty: leave it out for the default, or give {FORMS}"
        );
    }
    if trimmed != text && super::Zone::parse(trimmed).is_ok() {
        return format!("{} has quotes or spaces around it: write {trimmed}", quoted(text));
    }
    if ["local", "localtime", "system", "default"].contains(&lower.as_str()) {
        let leave_out = "leave the time zone out for the scheduler's own";
        return format!("{} is not a time zone: {leave_out}, or give {FORMS}", quoted(text));
    }
    if lower == "z" || lower == "zulu" {
        return format!("{} is not a time zone: write UTC", quoted(text));
    }
    if let Some(offset) = offset(trimmed) {
        return format!("{} is not a time zone: write {offset}", quoted(text));
    }
    if let Some(place) = place_of_abbreviation(trimmed) {
        return format!("{trimmed} is an abbreviation: name a place, such as {place}");
    }
    let near = place_with_city(&lower).or_else(|| similar(&lower));
    let near = near
        .map_or_else(|| format!("expected {FORMS}"), |near| format!("did you mean \"{near}\"?"));
    format!("unknown time zone {} ({near})", quoted(text))
}

/// Converts an offset in another form, such as `+5`, `+0530`, `5:30`, `UTC+3` or `GMT-03:00`, into the form `+05:30`.
pub(super) fn offset(text: &str) -> Option<String> {
    let upper = text.to_uppercase();
    let rest = upper.strip_prefix("UTC").or_else(|| upper.strip_prefix("GMT")).unwrap_or(&upper);
    let rest = rest.trim_start();
    let (sign, digits) = match rest.strip_prefix(['-', '\u{2212}']) {
        Some(digits) => ('-', digits),
        None => ('+', rest.strip_prefix('+').unwrap_or(rest)),
    };
    let is_signed = digits.len() < rest.len();
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if is_signed && digits.len() > 2 => digits.split_at_checked(digits.len() - 2)?,
        None if is_signed => (digits, "00"),
        None => return None,
    };
    let (hours, minutes) = (super::whole(hours)?, super::whole(minutes)?);
    let offset = format!("{sign}{hours:02}:{minutes:02}");
    super::parse_offset(&offset).map(|_| offset)
}

fn place_of_abbreviation(word: &str) -> Option<&'static str> {
    let upper = word.to_uppercase();
    let mut known = ABBREVIATIONS.lines().filter_map(|line| line.split_once(' '));
    if let Some((_, place)) = known.find(|(name, _)| *name == upper) {
        return Some(place);
    }
    let is_word = word.bytes().all(|byte| byte.is_ascii_uppercase());
    ((2..=ABBREVIATION_LETTERS_MAX).contains(&word.len()) && is_word).then_some("Europe/Berlin")
}

/// The zone whose name ends with this city, such as `Berlin` or `new york`.
fn place_with_city(lower: &str) -> Option<&'static str> {
    let wanted = lower.replace(' ', "_");
    let mut names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    names.find(|name| city(name).is_some_and(|city| city.eq_ignore_ascii_case(&wanted)))
}

fn city(name: &str) -> Option<&str> {
    let (area, city) = name.rsplit_once('/')?;
    (!NOT_OF_CITIES.contains(&area)).then_some(city)
}

/// The name that differs least from this text, if the difference is small for its length.
fn similar(lower: &str) -> Option<&'static str> {
    let letters = lower.chars().filter(|c| c.is_alphabetic()).count();
    if letters < SIMILAR_LETTERS_MIN || lower.len() > SIMILAR_LETTERS_MAX {
        return None;
    }
    let distance = |name: &'static str| {
        let compared = if lower.contains('/') { Some(name) } else { city(name) };
        Some((strsim::levenshtein(lower, &compared?.to_lowercase()), name))
    };
    let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    let (least, name) = names.filter_map(distance).min()?;
    (least <= letters / 5).then_some(name)
}
