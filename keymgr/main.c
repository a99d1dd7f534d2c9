/* SPDX-License-Identifier: Apache-2.0 */
/* secpool-keymgrd: the front of the key manager. docs/man/secpool-keymgrd.8.scd says how it is run. */
#include <cap-ng.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "enclave/enclave.h"
#include "keymgr/anchor.h"
#include "keymgr/arguments.h"
#include "keymgr/auditlog.h"
#include "keymgr/creates.h"
#include "keymgr/daemon.h"
#include "keymgr/devices.h"
#include "keymgr/directory.h"
#include "keymgr/epochs.h"
#include "keymgr/events.h"
#include "keymgr/owners.h"
#include "keymgr/rebalance.h"
#include "keymgr/releases.h"
#include "keymgr/revoke.h"
#include "keymgr/rotate.h"
#include "keymgr/server.h"
#include "keymgr/seals.h"
#include "keymgr/session.h"
#include "keymgr/wraps.h"
#include "lib/base/clock.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/log.h"
#include "lib/base/os.h"
#include "policy/policy.h"

enum { DESCRIPTORS = 65536 };

struct parts {
	struct arguments arguments;
	struct enclave enclave;
	struct policy *policy;
	int policy_fd, lock_fd, guardian_fd;
	sd_event_source *sources[6];
	bool reload; /* the loop ended to begin again with another policy */
};

static enum secpool_error join(char path[PATH_MAX], const char *folder, const char *name)
{
	if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s/%s", folder, name);
	return SECPOOL_OK;
}

/* One daemon for each state folder; the lock ends with the process, however it ends. */
static enum secpool_error lock_state(const char *state_dir, int *ret_fd)
{
	char path[PATH_MAX];
	enum secpool_error error = os_make_dir(state_dir, 0700);
	int fd;

	if (!error)
		error = join(path, state_dir, "keymgrd.lock");
	if (error)
		return error;
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return os_error("open %s", path);
	error = os_lock(fd, path);
	if (error == SECPOOL_E_BUSY)
		error = err_set(error,
			"another secpool-keymgrd uses %s: stop it ('secpool down') first",
			state_dir);
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

static const char *root_key_is(const struct enclave *enclave)
{
	return enclave->provisioned ? "new" : enclave->recovered ? "recovered" : "unsealed";
}

/*
 * A recovery is asked for: what the operator says of the store, and a generation above all that it ever had, which the directory remembers. It ends the daemon when it is done, so that no start in place asks again.
 */
static enum secpool_error prepare_recovery(
	const struct arguments *arguments, const char *store, struct enclave_recover *ret_recover)
{
	char *head = NULL;
	struct directory *directory = NULL;
	enum secpool_error error = SECPOOL_OK;

	ret_recover->generation = strtoull(arguments->recover, &head, 10);
	if (*head != ':' || arguments->key_fd == 0 || !arguments->once)
		return err_set(
			SECPOOL_E_INVALID, "--recover needs GENERATION:HEAD, --key-fd and --once");
	if (access(store, F_OK) != 0)
		return err_set(SECPOOL_E_STORE, "%s is missing: put its backup back", store);
	error = directory_open(store, &directory);
	if (!error)
		error = anchor_take_number(directory, &ret_recover->next);
	directory_close(directory);
	ret_recover->audit_head = head + 1;
	ret_recover->key_fd = arguments->key_fd;
	return error;
}

static enum secpool_error start_enclave(
	struct daemon *daemon, struct parts *parts, const char *store)
{
	const struct arguments *arguments = &parts->arguments;
	struct enclave_recover recover = {.key_fd = 0};
	struct enclave_options options = {.policy_name = arguments->policy,
		.tpm = arguments->tpm,
		.state_dir = arguments->state_dir,
		.audit = {.keep = auditlog_keep, .arg = daemon->auditlog},
		.new_audit = arguments->new_audit,
		.recovery_fd = arguments->recovery_fd,
		.recover = arguments->recover ? &recover : NULL,
		.store_exists = access(store, F_OK) == 0};
	char path[PATH_MAX];
	enum secpool_error error = join(path, arguments->runtime_dir, "keymgr.sock");

	if (!error && arguments->recover)
		error = prepare_recovery(arguments, store, &recover);
	if (error)
		return error;
	parts->policy_fd = open(arguments->policy, O_RDONLY | O_CLOEXEC);
	if (parts->policy_fd < 0)
		return os_error("open policy %s", arguments->policy);
	options.policy_fd = parts->policy_fd;
	options.socket_path = path;
	error = enclave_start(&options, &parts->enclave);
	if (!error)
		log_event(LOG_LEVEL_INFO, "enclave-started", "pid=%d root-key=%s",
			parts->enclave.pid, root_key_is(&parts->enclave));
	return error;
}

/*
 * What is left of root: raising the clients' locked-memory limit, and signals to them. The rest of the front's work is
 * done with descriptors that are open by now and files of its own.
 */
static enum secpool_error drop_privileges(void)
{
	static const unsigned kept[] = {CAP_SYS_RESOURCE, CAP_KILL};
	bool have[sizeof kept / sizeof *kept];

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return os_error("PR_SET_NO_NEW_PRIVS");
	if (geteuid() != 0)
		return SECPOOL_OK;
	if (capng_get_caps_process() != 0)
		return err_set(SECPOOL_E_DENIED, "capabilities could not be read");
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		have[i] = capng_have_capability(CAPNG_PERMITTED, kept[i]);
	capng_clear(CAPNG_SELECT_CAPS);
	/* one that this root does not have (a container's) can't be kept: log what will not work, go on without */
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
		if (!have[i])
			log_event(LOG_LEVEL_WARNING, "no-capability", "name=%s",
				capng_capability_to_name(kept[i]));
		else if (capng_update(CAPNG_ADD, (capng_type_t)(CAPNG_EFFECTIVE | CAPNG_PERMITTED),
				 kept[i]) != 0)
			return err_set(SECPOOL_E_DENIED, "capabilities could not be chosen");
	}
	if (capng_apply(CAPNG_SELECT_CAPS) != 0)
		return err_set(SECPOOL_E_DENIED, "capabilities could not be given up");
	return SECPOOL_OK;
}

static int on_enclave(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct daemon *daemon = arg;

	(void)source;
	(void)fd;
	(void)events;
	daemon_fail(daemon, "enclave-ended",
		err_set(SECPOOL_E_DAEMON_GONE, "the enclave process ended: nothing is served "
					       "without it, start keymgrd again"));
	return 0;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *arg)
{
	struct daemon *daemon = arg;

	(void)source;
	log_event(LOG_LEVEL_INFO, "stopping", "signal=%u", info->ssi_signo);
	return sd_event_exit(daemon->loop, 0);
}

/* The file as it is now, if it would be taken. */
static enum secpool_error check_policy(const char *path)
{
	struct policy *policy = NULL;
	enum secpool_error error = SECPOOL_E_INTERNAL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return os_error("open policy %s", path);
	error = policy_load_fd(fd, path, &policy);
	os_close(&fd);
	if (!error)
		error = enclave_check_policy(policy);
	policy_free(policy);
	return error;
}

/* The old one stays; this thread's sentence says why. */
static void refuse_policy(struct daemon *daemon)
{
	struct events_about about = {0};
	char reason[ERR_DETAIL_BYTES];

	msg_set_text(reason, sizeof reason, err_detail());
	events_record(daemon, "policy-refused", &about, "%.200s: the old one stays", reason);
	if (auditlog_note(daemon, MSG_NOTE_POLICY_REFUSED, NULL, "", 0, reason))
		log_error("refusal-not-told", SECPOOL_E_DAEMON_GONE);
}

/* A bad file changes nothing. A good one is taken by a new start in place: the enclave takes its policy from who starts it, and from nobody later. */
static int on_reload(sd_event_source *source, const struct signalfd_siginfo *info, void *arg)
{
	struct daemon *daemon = arg;
	struct parts *parts = daemon->parts;
	struct events_about about = {0};
	enum secpool_error error = check_policy(parts->arguments.policy);

	(void)source;
	(void)info;
	if (!error)
		error = auditlog_note(
			daemon, MSG_NOTE_POLICY_LOADED, NULL, "", 0, parts->arguments.policy);
	if (error) {
		refuse_policy(daemon);
		return 0;
	}
	events_record(daemon, "policy-reloaded", &about, "%.200s", parts->arguments.policy);
	parts->reload = true;
	return sd_event_exit(daemon->loop, 0);
}

/* Until there is a loop that takes it, and through an exec: a SIGHUP must wait then, for a policy that was read before it. */
static void hold_hangups(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
}

/* Returns only when it failed. */
static void start_again(char **argv)
{
	hold_hangups();
	execv("/proc/self/exe", argv);
	log_error("not-started-again", os_error("exec of this program"));
}

static enum secpool_error watch(struct daemon *daemon, struct parts *parts)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	parts->guardian_fd = pidfd_open(parts->enclave.guardian, 0);
	if (parts->guardian_fd < 0)
		return os_error("pidfd_open of the enclave's guardian");
	if (sd_event_add_io(daemon->loop, &parts->sources[0], parts->enclave.socket, EPOLLIN,
		    on_enclave, daemon) < 0 ||
		sd_event_add_io(daemon->loop, &parts->sources[1], parts->guardian_fd, EPOLLIN,
			on_enclave, daemon) < 0 ||
		sd_event_add_signal(daemon->loop, &parts->sources[2], SIGTERM, on_stop, daemon) <
			0 ||
		sd_event_add_signal(daemon->loop, &parts->sources[3], SIGINT, on_stop, daemon) <
			0 ||
		sd_event_add_signal(daemon->loop, &parts->sources[4], SIGHUP, on_reload, daemon) <
			0)
		return err_set(SECPOOL_E_SYSTEM, "the loop refused a source");
	return SECPOOL_OK;
}

/* Whoever has the recovery key of before can open what was stored then: live regions get new keys, also those that were on their way to one, which is stored too. Nothing of before is durable by a counter. */
static enum secpool_error renew_all_keys(struct daemon *daemon)
{
	struct events_about about = {0};
	enum secpool_error error = epochs_want_all(daemon->directory);

	if (!error)
		events_record(daemon, "recovered", &about,
			"generation %llu: the store is this TPM's now, by the recovery key: clear "
			"the TPM before, if it can be",
			(unsigned long long)daemon->generation);
	return error;
}

/* Everything that needs the enclave, in the order in which the parts need each other. */
static enum secpool_error start_parts(struct daemon *daemon, struct parts *parts)
{
	enum secpool_error error = watch(daemon, parts);

	if (!error)
		error = auditlog_start(daemon);
	if (!error)
		error = events_new(daemon, &daemon->events);
	if (!error)
		error = anchor_new(daemon, parts->arguments.state_dir, &daemon->anchor);
	/* what is sealed of the audit that was there before must not refuse the next start */
	if (!error && parts->arguments.new_audit)
		error = anchor_now(daemon);
	if (!error)
		error = session_new_table(&daemon->sessions);
	if (!error)
		error = owners_new(&daemon->owners);
	if (!error)
		error = devices_new(daemon, &daemon->devices);
	if (!error)
		error = releases_new(daemon, &daemon->releases);
	if (!error)
		error = seals_new(daemon, parts->arguments.state_dir, &daemon->seals);
	if (!error)
		error = creates_new(daemon, &daemon->creates);
	if (!error)
		error = server_new(daemon, parts->enclave.listener, &daemon->server);
	if (!error)
		error = owners_start(daemon);
	if (!error)
		error = revoke_unknown_tenants(daemon);
	if (!error && daemon->recovered)
		error = renew_all_keys(daemon);
	if (!error)
		error = revoke_tell_quotas(daemon);
	if (!error)
		error = rotate_start(daemon, &parts->sources[5]);
	if (!error)
		error = rebalance_new(daemon, &daemon->rebalance);
	return error;
}

static void stop_parts(struct daemon *daemon)
{
	server_free(daemon->server);
	daemon->server = NULL;
	rebalance_free(daemon->rebalance);
	creates_free(daemon->creates);
	seals_free(daemon->seals);
	releases_free(daemon->releases);
	devices_free(daemon->devices);
	owners_free(daemon->owners);
	session_free_table(daemon->sessions);
	anchor_free(daemon->anchor);
	events_free(daemon->events);
	wraps_close(daemon->wraps);
	directory_close(daemon->directory);
}

/* Prepares the process before there is anything to protect. */
static enum secpool_error harden(void)
{
	struct rlimit limit = {.rlim_cur = 0};

	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &limit) != 0)
		return os_error("core files could not be turned off");
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < DESCRIPTORS) {
		limit.rlim_cur = limit.rlim_max < DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
		if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
			log_event(LOG_LEVEL_WARNING, "few-descriptors", "limit=%llu",
				(unsigned long long)limit.rlim_cur);
	}
	umask(077);
	return guarded_copy_install();
}

static void close_passed(int *fd)
{
	if (*fd > 0)
		os_close(fd);
	*fd = 0;
}

static enum secpool_error open_all(struct daemon *daemon, struct parts *parts)
{
	char store[PATH_MAX];
	enum secpool_error error = harden();

	if (!error)
		error = lock_state(parts->arguments.state_dir, &parts->lock_fd);
	if (!error)
		error = join(store, parts->arguments.state_dir, "directory.db");
	if (!error)
		error = auditlog_open(parts->arguments.state_dir, &daemon->auditlog);
	if (!error)
		error = start_enclave(daemon, parts, store);
	/* the enclave's alone: whoever is at their other end is not kept waiting */
	close_passed(&parts->arguments.recovery_fd);
	close_passed(&parts->arguments.key_fd);
	if (!error)
		error = policy_load_fd(parts->policy_fd, parts->arguments.policy, &parts->policy);
	if (!error)
		error = directory_open(store, &daemon->directory);
	if (!error)
		error = wraps_open(parts->arguments.state_dir, daemon->directory, &daemon->wraps);
	if (error)
		return error;
	/* for clients that may not open it themselves; without it they use what the kernel gives them */
	daemon->faultfd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	daemon->policy = parts->policy;
	daemon->parts = parts;
	daemon->enclave = parts->enclave.socket;
	daemon->enclave_pid = parts->enclave.pid;
	daemon->provisioned = parts->enclave.provisioned;
	daemon->recovered = parts->enclave.recovered;
	daemon->generation = parts->enclave.generation;
	error = drop_privileges();
	daemon->may_raise = capng_get_caps_process() == 0 &&
			    capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_RESOURCE);
	return error;
}

static int serve(struct daemon *daemon)
{
	int status;

	log_event(LOG_LEVEL_INFO, "ready", "version=%s root-key=%s", SECPOOL_VERSION,
		daemon->provisioned ? "provisioned" : root_key_is(&daemon->parts->enclave));
	sd_notify(0, "READY=1");
	status = daemon->parts->arguments.once ? 0 : sd_event_loop(daemon->loop);
	sd_notify(0, daemon->parts->reload ? "RELOADING=1" : "STOPPING=1");
	return status < 0 ? 1 : status;
}

int main(int argc, char **argv)
{
	struct parts parts = {.policy_fd = -1, .lock_fd = -1, .guardian_fd = -1};
	struct daemon daemon = {.enclave = -1, .faultfd = -1, .start_ns = clock_now_ns()};
	enum secpool_error error = SECPOOL_E_SYSTEM;
	int status = 1;

	if (enclave_is_child(argc, argv, &status))
		return status;
	log_init("secpool-keymgrd", LOG_LEVEL_INFO);
	hold_hangups();
	status = arguments_read(argc, argv, &parts.arguments);
	if (status >= 0)
		return status;
	status = 1;
	error = open_all(&daemon, &parts);
	if (!error && sd_event_new(&daemon.loop) < 0)
		error = err_set(SECPOOL_E_SYSTEM, "no event loop");
	if (!error)
		error = start_parts(&daemon, &parts);
	if (error)
		log_error("not-started", error);
	else
		status = serve(&daemon);
	if (!error && status == 0)
		auditlog_stop(&daemon);
	stop_parts(&daemon);
	for (size_t i = 0; i < sizeof parts.sources / sizeof *parts.sources; i++)
		sd_event_source_disable_unref(parts.sources[i]);
	sd_event_unref(daemon.loop);
	if (parts.enclave.pid > 0)
		enclave_stop(&parts.enclave);
	auditlog_close(daemon.auditlog);
	policy_free(parts.policy);
	os_close(&parts.guardian_fd);
	os_close(&parts.policy_fd);
	os_close(&parts.lock_fd);
	os_close(&daemon.faultfd);
	log_event(LOG_LEVEL_INFO, "ended", "status=%d", status);
	if (parts.reload && status == 0) {
		start_again(argv);
		status = 1;
	}
	return status;
}
