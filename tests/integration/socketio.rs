//! What Socket.IO's own client is told where a part is away: `degraded` and `resume_pending`. All other events need no
//! fault, and are in `tests/socketio`.

mod real {
    use crate::support::backend::Backend;
    use crate::support::cluster::{self, WITHIN};
    use crate::support::person::Scene;
    use crate::support::proxy::Proxy;
    use std::path::Path;
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::process::Command;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_store_that_is_away_is_told_over_each_transport() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/socketio");
        let client = folder.join("node_modules/socket.io-client");
        assert!(client.exists(), "Socket.IO's client is not there: tests/components/install.sh installs it");
        let scene = Scene::on(cluster::real().await);
        let Backend::Real { cql, .. } = &scene.cluster.backend else { unreachable!("it is real") };
        assert!(!cql.contains(','), "with several nodes the driver finds a way around the line that is cut");
        let store = Proxy::to(cql.clone()).await;
        let edge = scene.cluster.edge(&[("cql_contact_points", &store.address)]).await;
        let person = scene.person();

        let script = folder.join("away.mjs");
        let mut node = Command::new("node");
        node.arg(script).arg(edge.url()).arg(&person.token).stdout(Stdio::piped()).kill_on_drop(true);
        let mut running = node.spawn().expect("node is there");
        let mut said = BufReader::new(running.stdout.take().expect("it is piped")).lines();
        let mut says = async |what: &str| {
            let line = timeout(WITHIN * 2, said.next_line()).await.expect("in time").expect("it can be read");
            assert_eq!(line.as_deref(), Some(what), "what went wrong stands above");
        };
        says("connected").await;
        store.open.send_replace(false);
        says("pending").await;
        store.open.send_replace(true);
        let ended = timeout(WITHIN * 2, running.wait()).await.expect("in time").expect("it ends");
        assert!(ended.success(), "{ended}: what went wrong stands above");
        edge.leave().await;
    }
}
