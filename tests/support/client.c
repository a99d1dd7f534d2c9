/* SPDX-License-Identifier: Apache-2.0 */
/* Tests as clients: on the wire, and through the library. */
#include "tests/support/support.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/wire/msg.h"
#include "lib/wire/sock.h"

static uint64_t deadline(void)
{
	return clock_now_ns() + 20 * CLOCK_NS_PER_S;
}

enum secpool_error support_ask(
	int fd, struct msg *request, uint32_t want, struct msg *ret_answer, int *ret_key)
{
	static uint32_t last;
	uint32_t number = ++last; /* the answer may go where the request was */
	struct sock_extra extra;
	enum secpool_error error;

	request->number = number;
	error = sock_send(fd, request, NULL, 0, deadline());
	while (!error) {
		error = sock_receive(fd, ret_answer, &extra, deadline());
		if (error)
			break;
		if (ret_answer->type == MSG_REGION_KEY && ret_key)
			*ret_key = sock_take_fd(&extra, 0);
		sock_close_fds(&extra);
		if (ret_answer->number != number || ret_answer->type == MSG_REGION_KEY)
			continue;
		if (ret_answer->type == want &&
			(want != MSG_REPLY || ret_answer->u.reply.error == SECPOOL_OK))
			break;
		if (ret_answer->type == MSG_REPLY)
			error = err_set(err_from_number(ret_answer->u.reply.error), "%s",
				ret_answer->u.reply.detail);
		else
			error = err_set(SECPOOL_E_PROTOCOL, "%s came instead of %s",
				msg_name(ret_answer->type), msg_name(want));
	}
	return error;
}

enum secpool_error support_session(const char *tenant, uint64_t local_bytes, int *ret_fd)
{
	struct msg request = {.type = MSG_SESSION_OPEN}, answer;
	enum secpool_error error;
	int fd = -1;

	*ret_fd = -1;
	error = sock_connect_as(support_path("keymgr.sock"), MSG_ROLE_CLIENT, &fd);
	if (error)
		return error;
	MSG_SET(request.u.session_open.tenant, tenant);
	request.u.session_open.local_bytes = local_bytes;
	error = sock_want_credentials(fd);
	if (!error)
		error = support_ask(fd, &request, MSG_SESSION_OPENED, &answer, NULL);
	if (error)
		close(fd);
	else
		*ret_fd = fd;
	return error;
}

enum secpool_error support_list(const char *socket, uint32_t what, uint32_t row_type,
	bool (*take)(const struct msg *row, void *arg), void *arg)
{
	struct msg request = {.type = MSG_LIST, .number = 1}, row;
	enum secpool_error error;
	int fd = -1;

	request.u.list.what = what;
	error = sock_connect_as(support_path("%s", socket), MSG_ROLE_ADMIN, &fd);
	if (error)
		return error;
	error = sock_send(fd, &request, NULL, 0, deadline());
	while (!error) {
		error = sock_receive(fd, &row, NULL, deadline());
		if (error || row.type == MSG_REPLY)
			break;
		if (row.type == row_type && !take(&row, arg))
			break;
	}
	close(fd);
	return error;
}

struct device_wait {
	const char *id, *state;
	bool scrubbed;
	char seen[512];
	bool is_so;
};

static bool take_device(const struct msg *row, void *arg)
{
	struct device_wait *wait = arg;
	const struct msg_device_row *device = &row->u.device_row;

	if (strcmp(device->id, wait->id) != 0)
		return true;
	const char *state = msg_device_state_name(device->state);
	snprintf(wait->seen, sizeof wait->seen, "%s (%s)", state, device->reason);
	wait->is_so = strcmp(state, wait->state) == 0;
	return false;
}

static bool take_use(const struct msg *row, void *arg)
{
	struct device_wait *wait = arg;
	const struct msg_use_row *use = &row->u.use_row;

	if (strcmp(use->id, wait->id) != 0)
		return true;
	wait->is_so = use->unscrubbed_bytes == 0 && use->state == MSG_DEVICE_ONLINE;
	return false;
}

static bool device_is_so(void *arg)
{
	struct device_wait *wait = arg;

	wait->is_so = false;
	if (support_list("hotplug.sock", MSG_LIST_DEVICES, MSG_DEVICE_ROW, take_device, wait))
		return false;
	if (!wait->is_so || !wait->scrubbed)
		return wait->is_so;
	wait->is_so = false;
	if (support_list("keymgr.sock", MSG_LIST_USE, MSG_USE_ROW, take_use, wait))
		return false;
	return wait->is_so;
}

void support_wait_device(const char *id, const char *state, bool scrubbed, unsigned ms)
{
	struct device_wait wait = {.id = id, .state = state, .scrubbed = scrubbed};

	if (!support_wait(device_is_so, &wait, ms))
		support_fail("device %s is %s, not %s%s, after %u ms", id, wait.seen, state,
			scrubbed ? " and scrubbed" : "", ms);
}

struct region_wait {
	unsigned wanted, seen;
};

static bool take_region(const struct msg *row, void *arg)
{
	(void)row;
	((struct region_wait *)arg)->seen++;
	return true;
}

static bool regions_are_so(void *arg)
{
	struct region_wait *wait = arg;

	wait->seen = 0;
	if (support_list("keymgr.sock", MSG_LIST_REGIONS, MSG_REGION_ROW, take_region, wait))
		return false;
	return wait->seen == wait->wanted;
}

static bool is_attested(void *arg)
{
	return support_cli(NULL, 0, "device", "attest", (const char *)arg, NULL) == 0;
}

void support_attest(const char *id, unsigned ms)
{
	char name[MSG_NAME_BYTES];

	MSG_SET(name, id);
	if (!support_wait(is_attested, name, ms))
		support_fail("device %s is not attested after %u ms", id, ms);
}

void support_wait_regions(unsigned count, unsigned ms)
{
	struct region_wait wait = {.wanted = count};

	if (!support_wait(regions_are_so, &wait, ms))
		support_fail("%u regions are listed, not %u, after %u ms", wait.seen, count, ms);
}

enum secpool_fault_mode support_fault_mode = SECPOOL_FAULT_THREAD;

struct secpool *support_open(const char *tenant, size_t local_bytes)
{
	struct secpool_options options = {.size = sizeof options, .local_bytes = local_bytes};
	struct secpool *pool;

	options.runtime_dir = support_runtime_dir();
	options.fault_mode = support_fault_mode;
	SUPPORT_OK(secpool_open(tenant, &options, &pool));
	return pool;
}

struct secpool_region *support_region(struct secpool *pool, size_t bytes, unsigned copies)
{
	struct secpool_region_options options = {.size = sizeof options, .bytes = bytes};
	struct secpool_region *region;

	if (copies > 1) {
		options.redundancy = SECPOOL_REDUNDANCY_MIRROR;
		options.copies = copies;
	}
	SUPPORT_OK(secpool_region_create(pool, &options, &region));
	return region;
}

struct secpool_region *support_coded(
	struct secpool *pool, size_t bytes, unsigned data, unsigned parity)
{
	struct secpool_region_options options = {.size = sizeof options,
		.bytes = bytes,
		.redundancy = SECPOOL_REDUNDANCY_EC,
		.data = data,
		.parity = parity};
	struct secpool_region *region;

	SUPPORT_OK(secpool_region_create(pool, &options, &region));
	return region;
}

bool support_event(struct secpool *pool, enum secpool_event_type type, unsigned ms,
	struct secpool_event *ret_event)
{
	uint64_t end = clock_now_ns() + (uint64_t)ms * CLOCK_NS_PER_MS, now;
	struct pollfd wait = {.fd = secpool_event_fd(pool), .events = POLLIN};

	while ((now = clock_now_ns()) < end) {
		struct secpool_event event = {.size = sizeof event};
		if (secpool_event_next(pool, &event) == SECPOOL_OK) {
			if (event.type != type)
				continue;
			*ret_event = event;
			return true;
		}
		poll(&wait, 1, (int)((end - now) / CLOCK_NS_PER_MS) + 1);
	}
	return false;
}

/* splitmix64: the words of a page follow from its seed, and no page is like another. */
static uint64_t next_word(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void support_fill(void *page, size_t bytes, uint64_t seed)
{
	uint64_t *word = page;

	for (size_t i = 0; i < bytes / sizeof *word; i++)
		word[i] = next_word(&seed);
}

bool support_matches(const void *page, size_t bytes, uint64_t seed)
{
	const uint64_t *word = page;

	for (size_t i = 0; i < bytes / sizeof *word; i++)
		if (word[i] != next_word(&seed))
			return false;
	return true;
}
