/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/load.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

#define PATIENCE_NS (60 * CLOCK_NS_PER_S)
enum { REGION_BYTES = 4096, EVENTS = 256 };

enum state { AWAY, HELLO, OPENING, READY, CREATING, RELEASING };

struct load_client {
	int fd;
	enum state state;
	uint64_t began_ns;
	uint64_t *kept; /* regions */
	size_t kept_count;
	uint64_t owed_ns; /* when a request was due that it could not begin; 0: none */
};

enum secpool_error load_init(
	struct load *load, const char *path, const char *tenant, size_t clients)
{
	*load = (struct load){.path = path, .tenant = tenant, .count = clients};
	load->epoll = epoll_create1(EPOLL_CLOEXEC);
	load->clients = calloc(clients, sizeof *load->clients);
	if (load->epoll < 0 || !load->clients) {
		load_done(load);
		return err_set(SECPOOL_E_NO_MEMORY, "load: no room for %zu clients", clients);
	}
	for (size_t i = 0; i < clients; i++)
		load->clients[i].fd = -1;
	return SECPOOL_OK;
}

void load_done(struct load *load)
{
	for (size_t i = 0; load->clients && i < load->count; i++) {
		os_close(&load->clients[i].fd);
		free(load->clients[i].kept);
	}
	free(load->clients);
	os_close(&load->epoll);
	for (unsigned kind = 0; kind < LOAD_KINDS; kind++)
		free(load->samples[kind].us10);
	*load = (struct load){.epoll = -1};
}

static void note(struct load *load, unsigned kind, uint64_t began_ns)
{
	struct load_samples *samples = &load->samples[kind];
	uint64_t took = (clock_now_ns() - began_ns) / 100;

	if (samples->count == samples->room) {
		size_t room = samples->room ? 2 * samples->room : 4096;
		uint32_t *more = realloc(samples->us10, room * sizeof *more);

		if (!more) {
			load->error = err_set(SECPOOL_E_NO_MEMORY, "load: samples");
			return;
		}
		samples->us10 = more;
		samples->room = room;
	}
	samples->us10[samples->count++] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
}

static void send_msg(struct load *load, struct load_client *client, struct msg *msg)
{
	enum secpool_error error =
		sock_send(client->fd, msg, NULL, 0, clock_now_ns() + PATIENCE_NS);

	if (error)
		load->error = error;
}

static void connect_client(struct load *load, struct load_client *client)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
	struct msg hello = {.type = MSG_HELLO, .number = 1};

	load->error = sock_connect(load->path, &client->fd);
	if (load->error)
		return;
	if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, client->fd, &event) != 0) {
		load->error = os_error("epoll_ctl");
		return;
	}
	client->state = HELLO;
	hello.u.hello.version = MSG_VERSION;
	hello.u.hello.role = MSG_ROLE_CLIENT;
	send_msg(load, client, &hello);
}

static void create_region(struct load *load, struct load_client *client)
{
	struct msg msg = {.type = MSG_REGION_CREATE, .number = 3};

	msg.u.region_create.bytes = REGION_BYTES;
	msg.u.region_create.page_bytes = REGION_BYTES;
	msg.u.region_create.data = 1;
	msg.u.region_create.lanes = 1;
	msg.u.region_create.on_loss = MSG_ON_LOSS_SIGBUS;
	client->state = CREATING;
	send_msg(load, client, &msg);
}

static void release_region(struct load *load, struct load_client *client, uint64_t region)
{
	struct msg msg = {.type = MSG_REGION_RELEASE, .number = 4};

	msg.u.region_release.region = region;
	client->state = RELEASING;
	send_msg(load, client, &msg);
}

static void keep_region(struct load *load, struct load_client *client, uint64_t region)
{
	uint64_t *more = realloc(client->kept, (client->kept_count + 1) * sizeof *client->kept);

	if (!more) {
		load->error = err_set(SECPOOL_E_NO_MEMORY, "load: regions");
		return;
	}
	client->kept = more;
	client->kept[client->kept_count++] = region;
}

/* The next request of a client that has none under way. */
static void begin(struct load *load, struct load_client *client, uint64_t due_ns)
{
	client->began_ns = due_ns;
	load->busy++;
	if (client->state == AWAY)
		connect_client(load, client);
	else if (load->run == LOAD_RUN_RELEASES)
		release_region(load, client, client->kept[--client->kept_count]);
	else
		create_region(load, client);
}

static void ended(struct load *load, struct load_client *client)
{
	uint64_t owed = client->owed_ns;

	load->busy--;
	if (load->error)
		return;
	client->owed_ns = 0;
	if (owed != 0) {
		begin(load, client, owed);
	} else if (load->run == LOAD_RUN_RELEASES) {
		if (client->kept_count > 0)
			begin(load, client, clock_now_ns());
	} else if (load->gap_ns == 0 && load->started < load->wanted) {
		load->started++;
		begin(load, client, clock_now_ns());
	}
}

static void opened(struct load *load, struct load_client *client)
{
	note(load, LOAD_SESSIONS, client->began_ns);
	client->state = READY;
	if (load->run == LOAD_RUN_SESSIONS) {
		os_close(&client->fd);
		client->state = AWAY;
	}
	ended(load, client);
}

static void made(struct load *load, struct load_client *client, uint64_t region)
{
	note(load, LOAD_CREATES, client->began_ns);
	if (load->run == LOAD_RUN_BOTH) {
		client->began_ns = clock_now_ns();
		release_region(load, client, region);
		return;
	}
	keep_region(load, client, region);
	client->state = READY;
	ended(load, client);
}

static void take(struct load *load, struct load_client *client, const struct msg *msg)
{
	struct msg next = {.type = MSG_SESSION_OPEN, .number = 2};

	if (msg->type == MSG_REPLY && msg->u.reply.error) {
		load->error =
			err_set(err_from_number(msg->u.reply.error), "%s", msg->u.reply.detail);
	} else if (msg->type == MSG_HELLO && client->state == HELLO) {
		MSG_SET(next.u.session_open.tenant, load->tenant);
		client->state = OPENING;
		send_msg(load, client, &next);
	} else if (msg->type == MSG_SESSION_OPENED && client->state == OPENING) {
		opened(load, client);
	} else if (msg->type == MSG_REGION_CREATED && client->state == CREATING) {
		made(load, client, msg->u.region_created.region);
	} else if (msg->type == MSG_RECEIPT && client->state == RELEASING) {
		note(load, LOAD_RELEASES, client->began_ns);
		client->state = READY;
		ended(load, client);
	}
}

static void receive(struct load *load, struct load_client *client)
{
	while (client->fd >= 0 && !load->error) {
		struct sock_extra extra = {.fd_count = 0};
		struct msg msg;
		enum secpool_error error = sock_receive(client->fd, &msg, &extra, 0);

		sock_close_fds(&extra);
		if (error == SECPOOL_E_NO_EVENT)
			return;
		if (error)
			load->error = error;
		else
			take(load, client, &msg);
	}
}

/* Begins what is due of a paced run; says how long nothing will be. */
static int begin_due(struct load *load)
{
	uint64_t now = clock_now_ns(), due = 0;

	while (load->gap_ns != 0 && load->started < load->wanted && !load->error) {
		struct load_client *client = &load->clients[load->started % load->count];

		due = load->base_ns + load->started * load->gap_ns;
		if (due > now)
			return (int)((due - now) / CLOCK_NS_PER_MS) + 1;
		load->started++;
		if (client->state == READY)
			begin(load, client, due);
		else if (client->owed_ns == 0)
			client->owed_ns = due;
	}
	return (int)(PATIENCE_NS / CLOCK_NS_PER_MS);
}

static enum secpool_error run(
	struct load *load, enum load_run what, size_t times, unsigned per_second)
{
	struct epoll_event events[EVENTS];

	load->started = load->busy = 0;
	load->run = what;
	load->wanted = times;
	load->gap_ns = per_second ? CLOCK_NS_PER_S / per_second : 0;
	load->base_ns = clock_now_ns();
	load->error = SECPOOL_OK;
	for (size_t i = 0;
		load->gap_ns == 0 && i < load->count && load->started < times && !load->error;
		i++) {
		load->started++;
		begin(load, &load->clients[i], clock_now_ns());
	}
	while (!load->error && (load->busy > 0 || (load->gap_ns && load->started < load->wanted))) {
		int wait_ms = begin_due(load);
		int count = epoll_wait(load->epoll, events, EVENTS, wait_ms);

		for (int i = 0; i < count; i++)
			receive(load, events[i].data.ptr);
		if (count == 0 && load->gap_ns == 0)
			load->error = err_set(
				SECPOOL_E_TIMEOUT, "%zu requests have no answer", load->busy);
	}
	return load->error;
}

enum secpool_error load_open(struct load *load)
{
	return run(load, LOAD_RUN_BOTH, load->count, 0);
}

enum secpool_error load_sessions(struct load *load, size_t times)
{
	return run(load, LOAD_RUN_SESSIONS, times, 0);
}

enum secpool_error load_regions(struct load *load, size_t times, unsigned per_second)
{
	return run(load, LOAD_RUN_BOTH, times, per_second);
}

enum secpool_error load_creates(struct load *load, size_t times)
{
	return run(load, LOAD_RUN_CREATES, times, 0);
}

enum secpool_error load_releases(struct load *load)
{
	return run(load, LOAD_RUN_RELEASES, load->count, 0);
}

static int by_size(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	return (a > b) - (a < b);
}

double load_latency(struct load *load, unsigned kind, double part)
{
	struct load_samples *samples = &load->samples[kind];

	if (samples->count == 0)
		return 0;
	qsort(samples->us10, samples->count, sizeof *samples->us10, by_size);
	return samples->us10[(size_t)(part * (double)(samples->count - 1))] / 10.0;
}

void load_forget(struct load *load)
{
	for (unsigned kind = 0; kind < LOAD_KINDS; kind++)
		load->samples[kind].count = 0;
}

struct process {
	pid_t parent;
	double cpu_s;
	uint64_t resident_bytes;
};

/* proc(5), stat: what stands behind the name, which may hold anything, up to the last bracket. */
static bool read_process(pid_t pid, struct process *ret_process)
{
	unsigned long long user, system;
	long parent, resident;
	char path[64], text[1024], *end;
	FILE *file;
	size_t bytes;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	bytes = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[bytes] = '\0';
	end = strrchr(text, ')');
	if (!end ||
		sscanf(end,
			") %*c %ld %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d"
			" %*d %*d %*u %*u %ld",
			&parent, &user, &system, &resident) != 4)
		return false;
	ret_process->parent = (pid_t)parent;
	ret_process->cpu_s = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
	ret_process->resident_bytes = (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
	return true;
}

static bool descends(pid_t pid, pid_t from)
{
	struct process process;

	for (int depth = 0; depth < 8 && pid > 1; depth++) {
		if (pid == from)
			return true;
		if (!read_process(pid, &process))
			return false;
		pid = process.parent;
	}
	return false;
}

struct load_cost load_cost_of(pid_t daemon)
{
	struct load_cost cost = {.cpu_s = 0};
	DIR *folder = opendir("/proc");
	const struct dirent *entry;

	while (folder && (entry = readdir(folder))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
		struct process process;

		if (pid <= 0 || !descends(pid, daemon) || !read_process(pid, &process))
			continue;
		cost.cpu_s += process.cpu_s;
		cost.resident_bytes += process.resident_bytes;
	}
	if (folder)
		closedir(folder);
	return cost;
}
