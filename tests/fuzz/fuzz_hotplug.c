/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: a hostile command at hotplug.sock. The input is a series of messages whose bodies it chooses, or raw packets, after a good HELLO or without one; hotplugd must answer or refuse each and go on. It knows
 * one device, dev0, that was pulled and whose folder is gone.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hotplug/control.h"
#include "hotplug/notify.h"
#include "hotplug/work.h"
#include "lib/base/log.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

enum { HEAD_BYTES = 12 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static struct hotplug hotplug;
static struct device device;
static char folder[] = "/tmp/secpool-fuzz-hotplug-XXXXXX", path[96];

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void clean_up(void)
{
	(void)!os_remove_tree(folder);
}

static void start(void)
{
	log_init("fuzz", LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	require(mkdtemp(folder) && sd_event_new(&hotplug.loop) >= 0);
	atexit(clean_up);
	snprintf(hotplug.runtime_dir, sizeof hotplug.runtime_dir, "%s", folder);
	snprintf(hotplug.devices_dir, sizeof hotplug.devices_dir, "%s/devices", folder);
	snprintf(path, sizeof path, "%s/hotplug.sock", folder);
	require(work_new(hotplug.loop, 1, &hotplug.tpm_work) == SECPOOL_OK);
	require(work_new(hotplug.loop, 1, &hotplug.copy_work) == SECPOOL_OK);
	require(work_new(hotplug.loop, 1, &hotplug.probe_work) == SECPOOL_OK);
	require(control_new(&hotplug, &hotplug.control) == SECPOOL_OK);
	require(notify_new(&hotplug, &hotplug.notify) == SECPOOL_OK);
	device.hotplug = &hotplug;
	device.media_fd = device.save_fd = -1;
	device.state = MSG_DEVICE_ABSENT;
	device.identity.kind = MSG_KIND_EMULATED;
	MSG_SET(device.identity.id, "dev0");
	hotplug.devices = &device;
	hotplug.device_count = 1;
}

static void run(void)
{
	while (sd_event_run(hotplug.loop, 0) > 0)
		;
}

static void greet(int fd)
{
	struct msg hello = {.type = MSG_HELLO, .number = 1};

	hello.u.hello.version = MSG_VERSION;
	hello.u.hello.role = MSG_ROLE_ADMIN;
	require(sock_send(fd, &hello, NULL, 0, 0) == SECPOOL_OK);
	run();
	require(sock_receive(fd, &hello, NULL, 0) == SECPOOL_OK && hello.type == MSG_HELLO);
}

/* A packet of this type with the right length, its body from the input; 0: there is no such type. */
static size_t shape(uint8_t type, const uint8_t *body, size_t count, uint8_t *packet)
{
	struct msg msg = {.type = type, .number = 2};
	size_t whole = 0;

	if (msg_encode(&msg, packet, MSG_BYTES_MAX, &whole) != SECPOOL_OK)
		return 0;
	memcpy(packet + HEAD_BYTES, body, count < whole - HEAD_BYTES ? count : whole - HEAD_BYTES);
	return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	uint8_t packet[MSG_BYTES_MAX];
	struct msg answer;
	size_t at = 1;
	int fd = -1;

	if (count < 1)
		return 0;
	if (!hotplug.loop)
		start();
	require(sock_connect(path, &fd) == SECPOOL_OK);
	run();
	if (bytes[0] & 1)
		greet(fd);
	while (at + 2 <= count) {
		size_t length = bytes[at + 1], whole;
		uint8_t type = bytes[at];

		at += 2;
		length = length < count - at ? length : count - at;
		whole = shape(type, bytes + at, length, packet);
		if (whole > 0)
			(void)!send(fd, packet, whole, MSG_NOSIGNAL | MSG_DONTWAIT);
		else if (length > 0)
			(void)!send(fd, bytes + at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		at += length;
		run();
		while (sock_receive(fd, &answer, NULL, 0) == SECPOOL_OK)
			require(answer.type == MSG_REPLY || answer.type == MSG_DEVICE_ROW ||
				answer.type == MSG_DEVICE_EVIDENCE);
	}
	close(fd);
	run();
	/* another command is served, whatever this one did */
	require(sock_connect(path, &fd) == SECPOOL_OK);
	run();
	greet(fd);
	close(fd);
	run();
	return 0;
}
