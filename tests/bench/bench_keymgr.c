/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keymgrd under load: sessions, regions made and released, by 1, 100 and 1,000 clients at once; idle sessions; a hundred thousand regions; a hostile neighbour. Real daemons of its own, over their
 * sockets. By the clock and, since others may use the machine, by the daemon's processor time.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"
#include "tests/bench/bench.h"
#include "tests/bench/load.h"
#include "tests/support/support.h"

/* Regions that are made and released one after the other unless --regions says; a tenth of them is a window. Space that is being overwritten still counts, so the devices hold some thousands. */
enum { CHURN = 100000, WINDOWS = 10, IDLE = 10000, SESSIONS = 20000, REGIONS = 1600, SINGLE = 10 };
enum {
	PACED_S = 20,
	HOSTILE_ROUNDS = 5,
	HOSTILE_REGIONS = 100,
	HOSTILE_CONNECTIONS = 50,
	NOBODY = 65534
};

static const char policy_text[] =
	"version: 1\n"
	"grace_seconds: 60\n"
	"tenants:\n"
	"  - name: load\n"
	"    users: [\"%self\"]\n"
	"    quota: {bytes: 64G, regions: 100000, sessions: 16000, local_bytes: 1M}\n"
	"    protection: [xts-gmac]\n    redundancy: [none]\n    on_loss: [sigbus]\n"
	"  - name: hostile\n"
	"    users: [\"65534\"]\n"
	"    quota: {bytes: 1G, regions: 100, sessions: 1000, local_bytes: 1M}\n"
	"    protection: [xts-gmac]\n    redundancy: [none]\n    on_loss: [sigbus]\n"
	"devices:\n  enrol: first-use\n  max_age_seconds: 3600\n"
	"  firmware: [secpool-emulated-1.0]\n";

struct measure {
	struct bench *bench;
	pid_t daemon;
	char config[64];
	struct load_cost cost;
	uint64_t since_ns;
};

static void start_measure(struct measure *measure)
{
	measure->cost = load_cost_of(measure->daemon);
	measure->since_ns = clock_now_ns();
}

static double seconds_since(const struct measure *measure)
{
	return (double)(clock_now_ns() - measure->since_ns) / (double)CLOCK_NS_PER_S;
}

/* By the clock, and what each took of the daemon's processors. */
static void report_rate(const struct measure *measure, const char *what, size_t times)
{
	double s = seconds_since(measure);
	double cpu = load_cost_of(measure->daemon).cpu_s - measure->cost.cpu_s;
	char metric[64];

	snprintf(metric, sizeof metric, "%s_rate", what);
	bench_report(measure->bench, metric, (double)times / s, "/s", 0, 0, measure->config);
	snprintf(metric, sizeof metric, "%s_cpu", what);
	bench_report(
		measure->bench, metric, cpu * 1e6 / (double)times, "us", 0, 0, measure->config);
}

static void report_latency(
	const struct measure *measure, struct load *load, unsigned kind, const char *what)
{
	char metric[64];

	snprintf(metric, sizeof metric, "%s_p50", what);
	bench_report(
		measure->bench, metric, load_latency(load, kind, 0.5), "us", 0, 0, measure->config);
	snprintf(metric, sizeof metric, "%s_p99", what);
	bench_report(measure->bench, metric, load_latency(load, kind, 0.99), "us", 0, 0,
		measure->config);
}

static enum secpool_error measure_sessions(struct measure *measure, size_t clients)
{
	size_t times = clients == 1 ? SESSIONS / SINGLE : SESSIONS;
	struct load load;
	enum secpool_error error = load_init(&load, support_path("keymgr.sock"), "load", clients);

	if (error)
		return error;
	start_measure(measure);
	error = load_sessions(&load, times);
	if (!error) {
		report_rate(measure, "session", times);
		report_latency(measure, &load, LOAD_SESSIONS, "session");
	}
	load_done(&load);
	return error;
}

static void report_memory(const struct measure *measure)
{
	bench_report(measure->bench, "daemon_memory",
		(double)load_cost_of(measure->daemon).resident_bytes / (1 << 20), "MiB", 0, 0,
		measure->config);
}

/* Regions made, then released, each as fast as it goes. *ret_s: what both took for one region. */
static enum secpool_error measure_full(
	struct measure *measure, struct load *load, size_t times, double *ret_s)
{
	enum secpool_error error;

	start_measure(measure);
	error = load_creates(load, times);
	*ret_s = seconds_since(measure);
	if (error)
		return error;
	report_rate(measure, "create", times);
	report_latency(measure, load, LOAD_CREATES, "create_full");
	report_memory(measure);
	start_measure(measure);
	error = load_releases(load);
	*ret_s = (*ret_s + seconds_since(measure)) / (double)times;
	if (error)
		return error;
	report_rate(measure, "release", times);
	report_latency(measure, load, LOAD_RELEASES, "release_full");
	return SECPOOL_OK;
}

/* As many as can be; then half as many in a second as there were, so that latency is that of a daemon with room, not of its queue. */
static enum secpool_error measure_regions(struct measure *measure, size_t clients)
{
	size_t times = clients == 1 ? REGIONS / SINGLE : REGIONS;
	double s = 0;
	unsigned half;
	struct load load;
	enum secpool_error error = load_init(&load, support_path("keymgr.sock"), "load", clients);

	if (error)
		return error;
	error = load_open(&load);
	if (!error)
		error = measure_full(measure, &load, times, &s);
	half = s > 0 ? (unsigned)(0.5 / s) + 1 : 1;
	/* not much longer than it takes at full rate on a machine that others use */
	times = times < (size_t)half * PACED_S ? times : (size_t)half * PACED_S;
	load_forget(&load);
	if (!error)
		error = load_regions(&load, times, half);
	if (!error) {
		bench_report(measure->bench, "half_rate", half, "/s", 0, 0, measure->config);
		report_latency(measure, &load, LOAD_CREATES, "create_half");
		report_latency(measure, &load, LOAD_RELEASES, "release_half");
	}
	load_done(&load);
	return error;
}

/* Processor time for each region, in the last window against the first. */
static enum secpool_error measure_churn(struct measure *measure, size_t regions)
{
	size_t window = regions / WINDOWS;
	double first = 0, last = 0;
	struct load load;
	enum secpool_error error = load_init(&load, support_path("keymgr.sock"), "load", 100);

	if (!error)
		error = load_open(&load);
	for (unsigned i = 0; i < WINDOWS && !error; i++) {
		start_measure(measure);
		error = load_regions(&load, window, 0);
		last = load_cost_of(measure->daemon).cpu_s - measure->cost.cpu_s;
		if (i == 0)
			first = last;
	}
	if (!error) {
		snprintf(measure->config, sizeof measure->config, "regions=%zu", regions);
		bench_report(measure->bench, "slowdown", last / first, "x", 0, 0, measure->config);
		report_memory(measure);
	}
	load_done(&load);
	return error;
}

static enum secpool_error measure_idle(struct measure *measure, size_t sessions)
{
	struct load idle;
	enum secpool_error error = load_init(&idle, support_path("keymgr.sock"), "load", sessions);

	if (error)
		return error;
	snprintf(measure->config, sizeof measure->config, "idle=%zu", sessions);
	start_measure(measure);
	error = load_open(&idle);
	if (!error) {
		report_rate(measure, "open", sessions);
		bench_report(measure->bench, "idle_sessions", (double)sessions, "", 0, 0,
			measure->config);
		report_memory(measure);
		error = measure_sessions(measure, 100);
	}
	load_done(&idle);
	return error;
}

/* ---- a hostile neighbour: many connections of another user, none of which reads, all of which send as fast as they can ---- */

static _Noreturn void be_hostile(const char *path, int ready)
{
	struct msg hello = {.type = MSG_HELLO, .number = 1},
		   open = {.type = MSG_SESSION_OPEN, .number = 2},
		   ask = {.type = MSG_EXTENTS_GET, .number = 3};
	int fds[HOSTILE_CONNECTIONS];

	if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
		_exit(1);
	hello.u.hello.version = MSG_VERSION;
	hello.u.hello.role = MSG_ROLE_CLIENT;
	MSG_SET(open.u.session_open.tenant, "hostile");
	memset(fds, -1, sizeof fds);
	for (bool told = false;; told = true) {
		for (size_t i = 0; i < HOSTILE_CONNECTIONS; i++) {
			enum secpool_error error = SECPOOL_OK;

			if (fds[i] < 0 && sock_connect(path, &fds[i]) == SECPOOL_OK) {
				error = sock_send(fds[i], &hello, NULL, 0, 0);
				if (!error)
					error = sock_send(fds[i], &open, NULL, 0, 0);
			}
			while (!error && fds[i] >= 0)
				error = sock_send(fds[i], &ask, NULL, 0, 0);
			if (error != SECPOOL_E_TIMEOUT)
				os_close(&fds[i]); /* dropped: begin again */
		}
		if (!told && write(ready, "x", 1) != 1)
			_exit(1);
	}
}

static pid_t start_hostile(void)
{
	char path[256], byte;
	int fds[2];
	pid_t pid;

	snprintf(path, sizeof path, "%s", support_path("keymgr.sock"));
	if (pipe(fds) != 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		be_hostile(path, fds[1]);
	}
	close(fds[1]);
	if (pid > 0 && read(fds[0], &byte, 1) != 1) {
		waitpid(pid, NULL, 0);
		pid = -1;
	}
	close(fds[0]);
	return pid;
}

static enum secpool_error measure_round(struct load *load, bool hostile, double ret_us[2])
{
	pid_t pid = hostile ? start_hostile() : 0;
	enum secpool_error error;

	if (pid < 0)
		return err_set(SECPOOL_E_SYSTEM, "the hostile client did not start");
	load_forget(load);
	error = load_creates(load, HOSTILE_REGIONS);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	ret_us[0] = load_latency(load, LOAD_CREATES, 0.5);
	ret_us[1] = load_latency(load, LOAD_CREATES, 0.99);
	return error;
}

static int by_value(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

/* One honest client, with and without the neighbour by turns. */
static enum secpool_error measure_hostile(struct measure *measure)
{
	static const char *const names[2][2] = {
		{"alone_p50", "alone_p99"}, {"beside_p50", "beside_p99"}};
	double us[2][2][HOSTILE_ROUNDS];
	struct load load;
	enum secpool_error error = load_init(&load, support_path("keymgr.sock"), "load", 1);

	if (error)
		return error;
	error = load_open(&load);
	for (unsigned i = 0; i < 2 * HOSTILE_ROUNDS && !error; i++) {
		double now[2] = {0, 0};

		error = measure_round(&load, i % 2, now);
		us[i % 2][0][i / 2] = now[0];
		us[i % 2][1][i / 2] = now[1];
	}
	if (!error)
		error = load_releases(&load);
	snprintf(measure->config, sizeof measure->config, "hostile_connections=%d",
		HOSTILE_CONNECTIONS);
	for (unsigned side = 0; side < 2 && !error; side++)
		for (unsigned part = 0; part < 2; part++) {
			double *all = us[side][part];

			qsort(all, HOSTILE_ROUNDS, sizeof *all, by_value);
			bench_report(measure->bench, names[side][part], all[HOSTILE_ROUNDS / 2],
				"us", all[0], all[HOSTILE_ROUNDS - 1], measure->config);
		}
	if (!error)
		bench_report(measure->bench, "beside_per_alone",
			us[1][0][HOSTILE_ROUNDS / 2] / us[0][0][HOSTILE_ROUNDS / 2], "x", 0, 0,
			measure->config);
	load_done(&load);
	return error;
}

/* ---- all ---- */

/* Each session is a descriptor here too. */
static size_t raise_descriptors(void)
{
	enum { OTHERS = 256 };
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return 0;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur > OTHERS ? (size_t)limit.rlim_cur - OTHERS : 0;
}

static enum secpool_error measure_all(struct measure *measure, size_t descriptors)
{
	static const size_t clients[] = {1, 100, 1000};
	size_t regions = measure->bench->regions ? measure->bench->regions : CHURN;
	enum secpool_error error = SECPOOL_OK;

	for (size_t i = 0; i < sizeof clients / sizeof *clients && !error; i++) {
		snprintf(measure->config, sizeof measure->config, "clients=%zu", clients[i]);
		error = measure_sessions(measure, clients[i]);
		if (!error)
			error = measure_regions(measure, clients[i]);
	}
	if (!error)
		error = measure_idle(measure, descriptors < IDLE ? descriptors : IDLE);
	if (!error && geteuid() == 0)
		error = measure_hostile(measure);
	else if (!error)
		fprintf(stderr, "secpool-bench: keymgr: no hostile neighbour without root\n");
	if (!error)
		error = measure_churn(measure, regions);
	return error;
}

int bench_keymgr(struct bench *bench)
{
	struct measure measure = {.bench = bench};
	size_t descriptors = raise_descriptors();
	char policy[] = "/tmp/secpool-bench-XXXXXX";
	enum secpool_error error;
	FILE *file;
	int fd;

	/* daemons of its own, with quotas that let it: not those of the folder that others use */
	if (unsetenv("SECPOOL_RUNTIME_DIR") != 0)
		return 1;
	fd = mkstemp(policy);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!file || fputs(policy_text, file) < 0 || fchmod(fd, 0644) != 0 || fclose(file) != 0)
		return bench_failed(bench, "policy");
	support_up(4, "1G", policy);
	for (unsigned i = 0; i < 4; i++) {
		char id[8];

		snprintf(id, sizeof id, "dev%u", i);
		support_wait_device(id, "online", true, 600000);
	}
	measure.daemon = support_daemon("keymgrd");
	error = measure_all(&measure, descriptors);
	unlink(policy);
	if (error)
		bench_failed(bench, measure.config);
	support_down();
	return error ? 1 : 0;
}
