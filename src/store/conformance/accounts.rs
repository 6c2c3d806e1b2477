//! Own accounts: unique user names, found by name, by id and by the beginning of the name.

use super::fresh;
use crate::store::{Claimed, OwnAccount, StorePort};
use futures_util::future::join_all;
use reedi_protocol::text::{Name, Username};

pub async fn all<S: StorePort>(store: &S) {
    an_account_comes_back(store).await;
    a_user_name_is_given_once(store).await;
    search_goes_by_prefix(store).await;
}

fn own(username: &str) -> OwnAccount {
    OwnAccount {
        account: fresh::account(),
        username: Username::parse(username).expect("a user name"),
        display_name: Name::parse("Ada Lovelace 🧮").expect("a name"),
        password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".to_owned(),
        created_at: fresh::ago(0),
    }
}

/// The beginning of user names that nobody else has.
fn beginning() -> String {
    format!("{:012x}", rand::random::<u64>() >> 16)
}

pub async fn an_account_comes_back<S: StorePort>(store: &S) {
    let mine = own(&beginning());
    assert!(store.account(mine.account).await.expect("it reads").is_none());
    assert!(store.account_by_username(&mine.username).await.expect("it reads").is_none());
    assert_eq!(store.create_account(&mine).await, Ok(Claimed::New));
    assert!(store.account(mine.account).await.expect("it reads") == Some(mine.clone()));
    assert!(store.account_by_username(&mine.username).await.expect("it reads") == Some(mine.clone()));
    let other = OwnAccount { username: mine.username.clone(), ..own("another") };
    assert_eq!(store.create_account(&other).await, Ok(Claimed::Stood(mine.account)));
    assert!(store.account(other.account).await.expect("it reads").is_none(), "a loser leaves nothing");
    assert!(store.account_by_username(&mine.username).await.expect("it reads") == Some(mine));
}

pub async fn a_user_name_is_given_once<S: StorePort>(store: &S) {
    let username = beginning();
    let tasks = (0..20).map(|_| {
        let (store, mine) = (store.clone(), own(&username));
        tokio::spawn(async move {
            match store.create_account(&mine).await.expect("it creates") {
                Claimed::New => (true, mine.account),
                Claimed::Stood(account) => (false, account),
            }
        })
    });
    let got: Vec<_> = join_all(tasks).await.into_iter().map(|t| t.expect("it ran")).collect();
    let winner = got[0].1;
    assert!(got.iter().all(|(_, account)| *account == winner), "all come to one account");
    assert_eq!(got.iter().filter(|(new, _)| *new).count(), 1, "it is new to one of them");
    let username = Username::parse(&username).expect("a user name");
    let found = store.account_by_username(&username).await.expect("it reads");
    assert_eq!(found.map(|a| a.account), Some(winner));
}

/// In the order of bytes, up to the limit, and nobody whose name only resembles the prefix.
pub async fn search_goes_by_prefix<S: StorePort>(store: &S) {
    let beginning = beginning();
    let mut ends = ["", "-", "-z", ".", ".a", "0", "9", "_", "_x", "a", "ab", "abc", "b", "z", "zz", "zzz"];
    ends.sort_unstable();
    for end in ends.iter().rev() {
        let created = store.create_account(&own(&format!("{beginning}{end}"))).await;
        assert_eq!(created, Ok(Claimed::New));
    }
    let search = async |prefix: &str, limit| {
        let found = store.search_accounts(prefix, limit).await.expect("it reads");
        found.into_iter().map(|a| a.username.into_string()).collect::<Vec<_>>()
    };
    for prefix in ["", "a", "ab", "abc", "_", ".", "z", "zz", "-", "y"] {
        for limit in [0, 1, 3, 50] {
            let prefix = format!("{beginning}{prefix}");
            let names = ends.iter().map(|end| format!("{beginning}{end}"));
            let wanted: Vec<String> = names.filter(|n| n.starts_with(&prefix)).take(limit).collect();
            assert_eq!(search(&prefix, limit).await, wanted, "{prefix}, {limit}");
        }
    }
    for prefix in ["", &beginning[..1], &beginning[..2]] {
        let found = search(prefix, 5).await;
        assert_eq!(found.len(), 5, "{prefix:?} has at least those of this check");
        assert!(found.is_sorted() && found.iter().all(|name| name.starts_with(prefix)), "{prefix:?}");
    }
    let found = store.search_accounts(&beginning, 1).await.expect("it reads");
    assert_eq!(found[0].display_name.as_str(), "Ada Lovelace 🧮", "found whole");
}
