//! Did you mean …? Finds the name that a mistyped one was meant to be.

/// The candidate that `typed` most likely was meant to be; of equally good ones the first.
///
/// Near is a distance of at most 3, and at most a third of the typed name. Without one that near, the
/// shortest candidate that has all the words of `typed` is it: `KAFKA_ACKS` for
/// `KAFKA_PRODUCER_ACKS`.
pub(super) fn nearest<'a>(
    typed: &str,
    candidates: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let near = (typed.len() / 3).min(3);
    let by_distance = candidates
        .clone()
        .filter(|candidate| candidate.len().abs_diff(typed.len()) <= near)
        .map(|candidate| (distance(typed, candidate), candidate))
        .filter(|&(distance, _)| distance <= near)
        .min_by_key(|&(distance, _)| distance);
    if let Some((_, candidate)) = by_distance {
        return Some(candidate);
    }
    let words: Vec<&str> = typed.split('_').filter(|word| !word.is_empty()).collect();
    let has_all =
        |candidate: &&str| words.iter().all(|word| candidate.split('_').any(|w| w == *word));
    if words.len() < 2 {
        return None;
    }
    candidates.filter(has_all).min_by_key(|candidate| candidate.split('_').count())
}

/// How many insertions, deletions, replacements and swaps of neighbours make `b` out of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i);
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("", "AB", 2), ("ABC", "ACB", 1), ("ABC", "AXC", 1), ("CA", "ABC", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn the_nearest_name_or_the_one_with_all_its_words() {
        let names = ["KAFKA_TIMESTAMP", "KAFKA_ORDER_EVENTS_TOPIC", "KAFKA_PRODUCER_ACKS"];
        for (typed, expected) in [
            ("KAFKA_TIMESTMAP", Some("KAFKA_TIMESTAMP")),
            ("KAFKA_ORDER_EVENT_TOPIC", Some("KAFKA_ORDER_EVENTS_TOPIC")),
            ("KAFKA_TOPIC", Some("KAFKA_ORDER_EVENTS_TOPIC")),
            ("KAFKA_ACKS", Some("KAFKA_PRODUCER_ACKS")),
            ("KAFKA_OPTS", None),
            ("KAFKA_", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, names.into_iter()), expected, "{typed}");
        }
    }
}
