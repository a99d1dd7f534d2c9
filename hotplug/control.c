/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hotplug/notify.h"
#include "hotplug/peer.h"
#include "hotplug/poison.h"
#include "hotplug/topology.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* Commands connected at once; how long a connection may take to say hello, and an attestation to
 * end. Milliseconds. */
enum { CLIENTS_MOST = 64, HELLO_MS = 5000, WAIT_MS = 45000, NS_PER_US = 1000, SOCKET_MODE = 0600 };

struct client {
	struct control *control;
	struct client *next;
	struct peer *peer;
	bool greeted;
	const struct device *waits_for; /* NULL: nothing is due */
	bool waits_for_pull;		/* else for an attestation */
	uint32_t number;		/* of the command that waits */
	uint32_t asked;			/* 0, or the number of what keymgrd was asked for it */
	sd_event_source *timer;
};

struct control {
	struct hotplug *hotplug;
	int listener;
	sd_event_source *io;
	struct client *clients;
	unsigned client_count;
	struct log_limit refusals;
};

static void free_client(struct client *client)
{
	struct client **at = &client->control->clients;

	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	client->control->client_count--;
	sd_event_source_disable_unref(client->timer);
	peer_free(client->peer);
	free(client);
}

static void on_closed(struct peer *peer, enum secpool_error why, void *arg)
{
	struct client *client = arg;

	(void)peer;
	if (why != SECPOOL_E_DAEMON_GONE && log_allowed(&client->control->refusals))
		log_event(LOG_LEVEL_WARNING, "command-ended", "error=%s detail=\"%s\"",
			err_name(why), err_detail());
	free_client(client);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct client *client = arg;
	const struct device *device = client->waits_for;

	(void)source;
	(void)usec;
	client->timer = sd_event_source_disable_unref(client->timer);
	if (!client->greeted) {
		peer_refuse(client->peer, 0, err_set(SECPOOL_E_TIMEOUT, "no HELLO came in time"));
	} else if (device) {
		client->waits_for = NULL;
		client->asked = 0;
		err_set(SECPOOL_E_TIMEOUT,
			"device %s is still %s: is keymgrd running? see 'secpool status'",
			device->identity.id, msg_device_state_name(device->state));
		peer_reply(client->peer, client->number, SECPOOL_E_TIMEOUT);
	}
	return 0;
}

static void arm(struct client *client, unsigned ms)
{
	client->timer = sd_event_source_disable_unref(client->timer);
	if (sd_event_add_time_relative(client->control->hotplug->loop, &client->timer,
		    CLOCK_MONOTONIC, (uint64_t)ms * (CLOCK_NS_PER_MS / NS_PER_US), 1, on_timer,
		    client) < 0)
		log_event(LOG_LEVEL_ERROR, "command-timer", "a command has no deadline");
}

static void settle(
	struct control *control, const struct device *device, bool pull, enum secpool_error result)
{
	char detail[ERR_DETAIL_BYTES]; /* each answer may set another */

	if (!control)
		return;
	msg_set_text(detail, sizeof detail, err_detail());
	for (struct client *client = control->clients; client; client = client->next) {
		if (client->waits_for != device || client->waits_for_pull != pull || client->asked)
			continue;
		client->waits_for = NULL;
		client->timer = sd_event_source_disable_unref(client->timer);
		err_set(result, "%s", detail);
		peer_reply(client->peer, client->number, result);
	}
}

void control_pulled(struct control *control, const struct device *device, enum secpool_error result)
{
	settle(control, device, true, result);
}

void control_attested(
	struct control *control, const struct device *device, enum secpool_error result)
{
	settle(control, device, false, result);
}

/* The answer is due later. Set before the command is carried out, as that may bring it at once. */
static void wait_for(struct client *client, const struct device *device, uint32_t number, bool pull)
{
	client->waits_for = device;
	client->waits_for_pull = pull;
	client->number = number;
	arm(client, WAIT_MS);
}

static enum secpool_error send_evidence(
	struct client *client, const struct device *device, uint32_t number)
{
	struct msg msg = {.type = MSG_DEVICE_EVIDENCE, .number = number};

	if (!device->evidence)
		return err_set(SECPOOL_E_NOT_ATTESTED,
			"device %s has no evidence that was accepted", device->identity.id);
	msg.u.device_evidence = *device->evidence;
	peer_send(client->peer, &msg, -1);
	return SECPOOL_OK;
}

/* keymgrd does it, and its answer is the command's. */
static enum secpool_error ask_scrub(
	struct client *client, const struct device *device, uint32_t number)
{
	struct msg msg = {.type = MSG_DEVICE_SCRUB};

	MSG_SET(msg.u.device_scrub.id, device->identity.id);
	client->asked = notify_request(client->control->hotplug->notify, &msg);
	if (client->asked == 0)
		return err_set(SECPOOL_E_DAEMON_GONE,
			"device %s can't be scrubbed: keymgrd does not answer",
			device->identity.id);
	client->waits_for = device;
	client->number = number;
	arm(client, WAIT_MS);
	return SECPOOL_OK;
}

void control_answered(struct control *control, uint32_t asked, const struct msg_reply *reply)
{
	for (struct client *client = control ? control->clients : NULL; client;
		client = client->next) {
		if (asked == 0 || client->asked != asked)
			continue;
		client->asked = 0;
		client->waits_for = NULL;
		client->timer = sd_event_source_disable_unref(client->timer);
		peer_reply(client->peer, client->number,
			err_set(err_from_number(reply->error), "%s", reply->detail));
		return;
	}
}

static enum secpool_error carry_out(struct client *client, struct device *device,
	const struct msg_device_command *command, uint32_t number)
{
	enum secpool_error error;

	switch (command->verb) {
	case MSG_VERB_PULL:
		wait_for(client, device, number, true);
		return device_pull(device, command->silent_ms);
	case MSG_VERB_PLUG:
		wait_for(client, device, number, false);
		return device_plug(device, false);
	case MSG_VERB_ATTEST:
		wait_for(client, device, number, false);
		return device_attest(device);
	case MSG_VERB_DRAIN:
		error = device_drain(device);
		if (!error)
			peer_reply(client->peer, number, SECPOOL_OK);
		return error;
	case MSG_VERB_SCRUB:
		return ask_scrub(client, device, number);
	case MSG_VERB_RETIRE:
		error = device_retire(device);
		if (!error)
			peer_reply(client->peer, number, SECPOOL_OK);
		return error;
	case MSG_VERB_EVIDENCE:
		return send_evidence(client, device, number);
	case MSG_VERB_INJECT:
		error = device_inject(device, command->argument);
		if (!error)
			peer_reply(client->peer, number, SECPOOL_OK);
		return error;
	default:
		return err_set(
			SECPOOL_E_PROTOCOL, "no device command has number %u", command->verb);
	}
}

static void take_command(
	struct client *client, const struct msg_device_command *command, uint32_t number)
{
	struct device *device = device_find(client->control->hotplug, command->id);
	enum secpool_error error;

	if (client->waits_for) {
		peer_reply(client->peer, number,
			err_set(SECPOOL_E_BUSY, "a command of this connection is not done yet"));
		return;
	}
	if (!device)
		error = err_set(SECPOOL_E_NOT_FOUND,
			"there is no device %.40s: see 'secpool device list'", command->id);
	else
		error = carry_out(client, device, command, number);
	if (error == SECPOOL_E_PROTOCOL) {
		peer_refuse(client->peer, number, error);
	} else if (error) {
		client->waits_for = NULL;
		client->timer = sd_event_source_disable_unref(client->timer);
		peer_reply(client->peer, number, error);
	}
}

/* What the kernel says of a CXL device. */
static void fill_topology(struct msg_device_row *row, const struct topology_device *topology)
{
	row->numa_node = UINT32_MAX;
	row->health = UINT32_MAX;
	row->poisoned = POISON_UNKNOWN;
	if (!topology)
		return;
	MSG_SET(row->memdev, topology->memdev);
	MSG_SET(row->region, topology->region);
	MSG_SET(row->dax, topology->dax);
	row->persistent_bytes = topology->persistent_bytes;
	row->volatile_bytes = topology->volatile_bytes;
	row->numa_node = (uint32_t)topology->numa_node;
	row->latency_ns = topology->latency_ns;
	row->health = topology->health;
	row->poisoned = topology->poisoned;
	row->sanitise = topology->sanitise;
}

static void send_row(struct client *client, const struct device *device, uint32_t number)
{
	struct msg msg = {.type = MSG_DEVICE_ROW, .number = number};
	struct msg_device_row *row = &msg.u.device_row;
	uint64_t now = clock_now_ns();

	MSG_SET(row->id, device->identity.id);
	MSG_SET(row->kind, msg_device_kind_name(device->identity.kind));
	MSG_SET(row->domain, device->identity.domain);
	MSG_SET(row->firmware, device->identity.firmware);
	MSG_SET(row->serial, device->identity.serial);
	fill_topology(row, device->topology);
	if (device->retire.state != MSG_SANITISE_NONE)
		row->sanitise = device->retire.state;
	row->state = device->state;
	row->bytes = device->identity.bytes;
	row->attested_ns = device->attested_ns;
	if (device->expires_ns > now)
		row->expires_s = (device->expires_ns - now) / CLOCK_NS_PER_S < UINT32_MAX
					 ? (uint32_t)((device->expires_ns - now) / CLOCK_NS_PER_S)
					 : UINT32_MAX;
	row->returns = device->holdoff.returns;
	row->held_s = (uint32_t)((holdoff_left(&device->holdoff, now) + CLOCK_NS_PER_S - 1) /
				 CLOCK_NS_PER_S);
	row->tag_failures = device->health.tags;
	row->faults = device->health.faults;
	row->looks = device->health.looks;
	MSG_SET(row->reason, device->reason);
	peer_send(client->peer, &msg, -1);
}

/* after: rows that come later in the list than that many. All fit into a peer's queue
 * (DEVICE_MOST). */
static void take_list(struct client *client, const struct msg_list *list, uint32_t number)
{
	const struct device *device = client->control->hotplug->devices;

	if (list->what != MSG_LIST_DEVICES) {
		peer_refuse(client->peer, number,
			err_set(SECPOOL_E_PROTOCOL, "hotplugd has no list %u", list->what));
		return;
	}
	for (uint64_t i = 0; device; device = device->next, i++)
		if (i >= list->after)
			send_row(client, device, number);
	peer_reply(client->peer, number, SECPOOL_OK);
}

static void take_hello(struct client *client, const struct msg *msg)
{
	struct msg hello = {.type = MSG_HELLO, .number = msg->number};

	if (msg->type != MSG_HELLO || msg->u.hello.role != MSG_ROLE_ADMIN) {
		peer_refuse(client->peer, msg->number,
			err_set(SECPOOL_E_PROTOCOL,
				"the first message must be HELLO of a command"));
		return;
	}
	hello.u.hello.version = MSG_VERSION;
	hello.u.hello.role = MSG_ROLE_HOTPLUG;
	peer_send(client->peer, &hello, -1);
	if (msg->u.hello.version != MSG_VERSION) {
		peer_refuse(client->peer, msg->number,
			err_set(SECPOOL_E_PROTOCOL, "version %u, hotplugd has %u: install the same",
				msg->u.hello.version, (unsigned)MSG_VERSION));
		return;
	}
	client->greeted = true;
	client->timer = sd_event_source_disable_unref(client->timer);
}

static void on_message(struct peer *peer, const struct msg *msg, void *arg)
{
	struct client *client = arg;

	if (!client->greeted)
		take_hello(client, msg);
	else if (msg->type == MSG_DEVICE_COMMAND)
		take_command(client, &msg->u.device_command, msg->number);
	else if (msg->type == MSG_LIST)
		take_list(client, &msg->u.list, msg->number);
	else
		peer_refuse(peer, msg->number,
			err_set(SECPOOL_E_PROTOCOL, "hotplugd takes no %s from a command",
				msg_name(msg->type)));
}

static const struct peer_callbacks callbacks = {.message = on_message, .closed = on_closed};

/* The socket's mode says the same; this holds where the file system does not. */
static enum secpool_error check_peer(int fd)
{
	struct sock_peer who;
	enum secpool_error error = sock_peer(fd, &who);

	if (!error && who.uid != 0 && who.uid != geteuid())
		error = err_set(SECPOOL_E_DENIED,
			"user %u may not command hotplugd, only its own user and root", who.uid);
	return error;
}

static enum secpool_error add_client(struct control *control, int fd)
{
	struct client *client;
	enum secpool_error error = check_peer(fd);

	if (error)
		return error;
	if (control->client_count >= CLIENTS_MOST)
		return err_set(SECPOOL_E_LIMIT, "%u commands are connected already", CLIENTS_MOST);
	client = calloc(1, sizeof *client);
	if (!client)
		return err_set(SECPOOL_E_NO_MEMORY, "a command's connection: out of memory");
	client->control = control;
	error = peer_new(control->hotplug->loop, fd, &callbacks, client, &client->peer);
	if (error) {
		free(client);
		return error;
	}
	client->next = control->clients;
	control->clients = client;
	control->client_count++;
	arm(client, HELLO_MS);
	return SECPOOL_OK;
}

static int on_connection(sd_event_source *source, int listener, uint32_t events, void *arg)
{
	struct control *control = arg;
	enum secpool_error error;
	int fd = -1;

	(void)source;
	(void)events;
	error = sock_accept(listener, &fd);
	if (error == SECPOOL_E_NO_EVENT)
		return 0;
	if (!error)
		error = add_client(control, fd);
	if (error) {
		if (log_allowed(&control->refusals))
			log_error("command-refused", error);
		if (fd >= 0 && sock_reply(fd, 0, error, 0))
			log_event(LOG_LEVEL_DEBUG, "command-gone", "it does not read");
		os_close(&fd);
	}
	return 0;
}

enum secpool_error control_new(struct hotplug *hotplug, struct control **ret_control)
{
	struct control *control = calloc(1, sizeof *control);
	enum secpool_error error;
	char path[PATH_MAX];

	if (!control)
		return err_set(SECPOOL_E_NO_MEMORY, "hotplug.sock: out of memory");
	control->hotplug = hotplug;
	control->listener = -1;
	control->refusals = (struct log_limit){.period_ns = 10 * CLOCK_NS_PER_S, .burst = 10};
	if (snprintf(path, sizeof path, "%s/hotplug.sock", hotplug->runtime_dir) >=
		(int)sizeof path)
		error = err_set(SECPOOL_E_LIMIT, "path too long: %s", hotplug->runtime_dir);
	else
		error = sock_listen(path, SOCKET_MODE, &control->listener);
	if (!error && sd_event_add_io(hotplug->loop, &control->io, control->listener, EPOLLIN,
			      on_connection, control) < 0)
		error = err_set(SECPOOL_E_SYSTEM, "%s can't be watched", path);
	if (error)
		control_free(control);
	else
		*ret_control = control;
	return error;
}

void control_free(struct control *control)
{
	if (!control)
		return;
	while (control->clients)
		free_client(control->clients);
	sd_event_source_disable_unref(control->io);
	os_close(&control->listener);
	free(control);
}
