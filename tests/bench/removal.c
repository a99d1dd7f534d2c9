/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/removal.h"

#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/err.h"
#include "lib/base/os.h"

enum { OUTPUT_BYTES = 1 << 16, SETTLE_MS = 50, SETTLE_LOOKS = 600 };
extern char **environ;

int removal_open_region(struct bench *bench, struct secpool *pool, const struct removal_kind *kind,
	size_t bytes, size_t page_bytes, struct secpool_region **ret_region)
{
	struct secpool_region_options wanted = {.size = sizeof wanted,
		.bytes = bytes,
		.page_bytes = page_bytes,
		.redundancy = kind->redundancy,
		.copies = kind->copies,
		.data = kind->data,
		.parity = kind->parity,
		.on_loss = kind->on_loss,
		.refill = kind->refill,
		.name = "bench"};

	if (secpool_region_create(pool, &wanted, ret_region) != SECPOOL_OK)
		return bench_failed(bench, kind->name);
	return 0;
}

/* `secpool ARGS`, from the folder of this program; what it prints goes to text (NULL: nowhere). */
static int run_cli(const char *const *args, char *text)
{
	char path[PATH_MAX], *argv[8];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 16);
	posix_spawn_file_actions_t actions;
	size_t count = 0, used = 0;
	int ends[2], status;
	ssize_t got;
	pid_t pid;

	if (length < 0 || pipe2(ends, O_CLOEXEC) != 0)
		return -1;
	path[length] = '\0';
	snprintf(strrchr(path, '/'), 16, "/secpool");
	argv[count++] = path;
	for (; *args && count < sizeof argv / sizeof *argv - 1; args++)
		argv[count++] = (char *)(uintptr_t)*args; /* only read */
	argv[count] = NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	status = posix_spawn(&pid, path, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	while (status == 0) {
		char drop[512];
		got = text ? read(ends[0], text + used, OUTPUT_BYTES - 1 - used)
			   : read(ends[0], drop, sizeof drop);
		if (got <= 0)
			break;
		used += (size_t)got;
	}
	close(ends[0]);
	if (text)
		text[used] = '\0';
	if (status != 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status == 0 ? 0 : -1;
}

static uint64_t number_of(json_object *row, const char *name)
{
	json_object *value = NULL;

	return json_object_object_get_ex(row, name, &value) ? json_object_get_uint64(value) : 0;
}

/* The rows of `secpool device list --json`; NULL on failure. */
static json_object *list_devices(void)
{
	static const char *const list[] = {"device", "list", "--json", NULL};
	char *text = malloc(OUTPUT_BYTES);
	json_object *rows = NULL;

	if (text && run_cli(list, text) == 0)
		rows = json_tokener_parse(text);
	free(text);
	return rows;
}

int removal_find_device(char id[SECPOOL_NAME_BYTES], uint64_t *ret_used_bytes)
{
	json_object *rows = list_devices();
	uint64_t most = 0;

	for (size_t i = 0; rows && i < json_object_array_length(rows); i++) {
		json_object *row = json_object_array_get_idx(rows, i), *name = NULL;
		if (number_of(row, "used_bytes") <= most ||
			!json_object_object_get_ex(row, "id", &name))
			continue;
		most = number_of(row, "used_bytes");
		snprintf(id, SECPOOL_NAME_BYTES, "%s", json_object_get_string(name));
	}
	json_object_put(rows);
	*ret_used_bytes = most;
	return most > 0 ? 0 : -1;
}

int removal_settle(void)
{
	for (unsigned i = 0; i < SETTLE_LOOKS; i++) {
		json_object *rows = list_devices();
		uint64_t busy = rows ? 0 : 1;

		for (size_t at = 0; rows && at < json_object_array_length(rows); at++) {
			json_object *row = json_object_array_get_idx(rows, at);
			busy += number_of(row, "bytes") - number_of(row, "free_bytes");
		}
		json_object_put(rows);
		if (busy == 0)
			return 0;
		clock_sleep_ns(SETTLE_MS * CLOCK_NS_PER_MS);
	}
	return -1;
}

int removal_open(struct removal_puller *puller, const char *id)
{
	char runtime[PATH_MAX - 128], media[PATH_MAX];

	*puller = (struct removal_puller){.fd = -1};
	if (os_runtime_dir(NULL, runtime, sizeof runtime) != SECPOOL_OK)
		return -1;
	snprintf(media, sizeof media, "%s/devices/%s/media", runtime, id);
	puller->fd = open(media, O_RDWR | O_CLOEXEC);
	return puller->fd < 0 ? -1 : 0;
}

void *removal_pull(void *arg)
{
	struct removal_puller *puller = arg;

	atomic_store(&puller->begun_ns, clock_now_ns());
	puller->failed = ftruncate(puller->fd, 0) != 0;
	return NULL;
}

void removal_close(struct removal_puller *puller)
{
	if (puller->fd >= 0)
		close(puller->fd);
	puller->fd = -1;
}

int removal_plug(const char *id)
{
	const char *const plug[] = {"device", "plug", id, NULL};

	return run_cli(plug, NULL);
}

uint64_t removal_await(struct secpool *pool, enum secpool_event_type type, unsigned ms)
{
	uint64_t end = clock_now_ns() + (uint64_t)ms * CLOCK_NS_PER_MS;
	struct pollfd wait = {.fd = secpool_event_fd(pool), .events = POLLIN};

	while (clock_now_ns() < end) {
		struct secpool_event event = {.size = sizeof event};
		if (secpool_event_next(pool, &event) != SECPOOL_OK)
			poll(&wait, 1, 10);
		else if (event.type == type)
			return event.time_ns;
	}
	return 0;
}

void removal_forget_events(struct secpool *pool)
{
	struct secpool_event event = {.size = sizeof event};

	while (secpool_event_next(pool, &event) == SECPOOL_OK)
		;
}
