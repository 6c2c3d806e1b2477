//! What every adapter of the people port does, as checks that each adapter's test runs ([`all`]) on
//! a world that it has set up.
//!
//! A check panics where the adapter falls short: that is what a test wants.

use super::{PeoplePort, QUERY_CHARS};
use reedi_protocol::AccountId;
use reedi_protocol::resource::Profile;
use uuid::Uuid;

/// The user names of a [`World`], in the order in which a search gives them.
pub const USERNAMES: [&str; 4] = ["ann", "anna", "anna.b", "bob"];

/// The people whom the adapter knows: those of [`USERNAMES`] and nobody else, in that order.
pub struct World {
    pub known: Vec<Profile>,
    /// Follower and followee; empty where there is no follow graph.
    pub follows: Vec<(AccountId, AccountId)>,
}

/// Every check, one after the other.
pub async fn all<P: PeoplePort>(people: &P, world: &World) {
    a_profile_is_found_by_its_account(people, world).await;
    existing_answers_in_the_order_asked(people, world).await;
    a_search_is_by_the_beginning_of_the_user_name(people, world).await;
    a_strange_query_finds_nobody(people).await;
    follows_has_a_direction(people, world).await;
}

fn stranger() -> AccountId {
    AccountId::new(Uuid::new_v4())
}

pub async fn a_profile_is_found_by_its_account<P: PeoplePort>(people: &P, world: &World) {
    for profile in &world.known {
        for _ in 0..2 {
            let found = people.profile(profile.user_id).await;
            assert_eq!(found.as_ref(), Ok(&Some(profile.clone())), "the second time too");
        }
    }
    assert_eq!(people.profile(stranger()).await, Ok(None));
}

pub async fn existing_answers_in_the_order_asked<P: PeoplePort>(people: &P, world: &World) {
    assert_eq!(people.existing(&[]).await, Ok(Vec::new()));
    let mut asked = Vec::new();
    let mut expected = Vec::new();
    for round in 0..20 {
        for (i, profile) in world.known.iter().enumerate() {
            let known = (i + round) % 3 != 0;
            asked.push(if known { profile.user_id } else { stranger() });
            expected.push(known);
        }
    }
    assert_eq!(people.existing(&asked).await, Ok(expected));
}

pub async fn a_search_is_by_the_beginning_of_the_user_name<P: PeoplePort>(people: &P, world: &World) {
    for (query, limit, found) in [
        ("ann", 10, 0..3),
        ("anna", 10, 1..3),
        ("ANNA", 10, 1..3),
        (" @anna ", 10, 1..3),
        ("anna.", 10, 2..3),
        ("a", 2, 0..2),
        ("a", 1, 0..1),
        ("bob", 10, 3..4),
        ("bobby", 10, 0..0),
        ("nn", 10, 0..0),
        ("a", 0, 0..0),
    ] {
        let answer = people.search(query, limit).await;
        assert_eq!(answer, Ok(world.known[found].to_vec()), "{query:?}, at most {limit}");
    }
}

pub async fn a_strange_query_finds_nobody<P: PeoplePort>(people: &P) {
    let long = "a".repeat(QUERY_CHARS + 1);
    for query in
        ["", " ", "@", "%", "*", "..", "../users", "a\0", "an\nn", "ä", "🙂", "ann&limit=1", "a n", &long]
    {
        assert_eq!(people.search(query, 10).await, Ok(Vec::new()), "{query:?}");
    }
}

pub async fn follows_has_a_direction<P: PeoplePort>(people: &P, world: &World) {
    let everyone: Vec<_> = world.known.iter().map(|p| p.user_id).chain([stranger()]).collect();
    for follower in &everyone {
        for followee in &everyone {
            let expected = world.follows.contains(&(*follower, *followee));
            assert_eq!(people.follows(*follower, *followee).await, Ok(expected), "{follower} {followee}");
        }
    }
}
