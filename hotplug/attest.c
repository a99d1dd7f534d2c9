/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/attest.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/eventlog.h"
#include "enclave/tpm.h"
#include "hotplug/notify.h"
#include "hotplug/topology.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"

/* How long a TPM that was just started may take to accept, and the pause between two looks. */
#define TPM_READY_NS (20 * CLOCK_NS_PER_S)
#define TPM_PAUSE_NS (5ull * CLOCK_NS_PER_MS)

/* How long keymgrd may take for one answer. */
enum { ANSWER_MS = 10000, NS_PER_US = 1000, AK_FILE_MODE = 0600 };

enum phase {
	PHASE_KEYS,	 /* on a thread: open the TPM, load or make the keys */
	PHASE_CHALLENGE, /* keymgrd is asked */
	PHASE_QUOTE,	 /* on a thread: activate, quote, close */
	PHASE_VERDICT,	 /* keymgrd is asked */
	PHASE_CLOSE,	 /* on a thread: dropped while the TPM was open */
};

_Static_assert(sizeof((struct msg_attest_begin *)NULL)->ek == TPM_PUBLIC_BYTES, "lengths");
_Static_assert(sizeof((struct msg_attest_evidence *)NULL)->log == EVENTLOG_BYTES_MOST, "log");

/* One exchange. While a thread has it (busy), only `dropped` may be touched. */
struct attest {
	struct work_item work;
	struct device *device;
	enum phase phase;
	bool busy;
	_Atomic bool dropped;
	uint32_t number; /* of the request that keymgrd is to answer */
	sd_event_source *deadline;
	char folder[PATH_MAX];
	struct tpm *tpm;
	struct identity identity; /* as it was when the exchange began */
	struct tpm_public ek, ak;
	size_t certificate_bytes;
	uint8_t certificate[sizeof((struct msg_attest_begin *)NULL)->certificate];
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence;
	enum secpool_error error;
	char detail[ERR_DETAIL_BYTES];
};

static void free_attest(struct attest *attest)
{
	sd_event_source_disable_unref(attest->deadline);
	free(attest);
}

/* ---- on a thread ---- */

/* swtpm measures nothing by itself: hotplugd, which gave it power, does it as the device's boot would. */
static enum secpool_error measure(struct attest *attest)
{
	struct identity_measured measured;
	enum secpool_error error;

	if (attest->identity.tpm != IDENTITY_TPM_SWTPM)
		return SECPOOL_OK;
	identity_measure(&attest->identity, &measured);
	error = tpm_measure(attest->tpm, 0, measured.firmware);
	return error ? error : tpm_measure(attest->tpm, 2, measured.device);
}

/* The key blob may be stale (another TPM): then *use_blob becomes false, and the next try makes a
 * new key. */
static enum secpool_error load_keys(struct attest *attest, const char *where, bool *use_blob)
{
	char path[PATH_MAX], *text = NULL;
	uint8_t blob[TPM_BLOB_BYTES];
	size_t bytes = 0, old_bytes = 0;
	enum secpool_error error;

	if (snprintf(path, sizeof path, "%s/ak.blob", attest->folder) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", attest->folder);
	error = tpm_open(where, &attest->tpm);
	if (error)
		return error;
	/* which EK the TPM has is decided by which one it has a certificate for */
	error = tpm_ek_certificate(attest->tpm, attest->certificate, sizeof attest->certificate,
		&attest->certificate_bytes);
	if (!error)
		error = measure(attest);
	if (error)
		goto out;
	if (*use_blob && os_read_file(path, sizeof blob, &text, &bytes) == SECPOOL_OK)
		memcpy(blob, text, bytes);
	else
		bytes = 0;
	free(text);
	old_bytes = bytes;
	error = tpm_attestation_key(attest->tpm, blob, &bytes, &attest->ek, &attest->ak);
	if (!error && (attest->ek.bytes > sizeof attest->ek.area ||
			      attest->ak.bytes > sizeof attest->ak.area || bytes > sizeof blob))
		error = err_set(SECPOOL_E_TPM, "the device's TPM gave keys of impossible length");
	if (!error && old_bytes == 0)
		error = os_write_file_durable(path, blob, bytes, AK_FILE_MODE);
out:
	if (error) {
		*use_blob = false;
		tpm_close(attest->tpm);
		attest->tpm = NULL;
	}
	return error;
}

static enum secpool_error run_keys(struct attest *attest)
{
	uint64_t deadline_ns = clock_now_ns() + TPM_READY_NS;
	char where[PATH_MAX + 16];
	enum secpool_error error;
	bool use_blob = true;

	snprintf(where, sizeof where, "unix:%s/tpm.sock", attest->folder);
	do {
		error = load_keys(attest, where, &use_blob);
		if (error)
			clock_sleep_ns(TPM_PAUSE_NS);
	} while (error && !atomic_load_explicit(&attest->dropped, memory_order_relaxed) &&
		 clock_now_ns() < deadline_ns);
	return error;
}

static enum secpool_error run_quote(struct attest *attest)
{
	const struct msg_attest_challenge *challenge = &attest->challenge;
	struct msg_attest_evidence *evidence = &attest->evidence;
	enum secpool_error error;
	struct tpm_quote quote;
	size_t bytes = 0;

	memset(evidence, 0, sizeof *evidence);
	error = tpm_activate(attest->tpm, challenge->credential, challenge->credential_bytes,
		challenge->secret, challenge->secret_bytes, evidence->activated, &bytes);
	evidence->activated_bytes = (uint32_t)bytes;
	if (!error)
		error = tpm_quote(attest->tpm, challenge->pcrs, challenge->nonce,
			sizeof challenge->nonce, &quote);
	if (error)
		return error;
	if (bytes > sizeof evidence->activated || quote.attest_bytes > sizeof evidence->attest ||
		quote.signature_bytes > sizeof evidence->signature ||
		quote.pcr_count > TPM_PCRS_MOST)
		return err_set(SECPOOL_E_TPM, "the device's TPM gave more than evidence can hold");
	MSG_SET(evidence->id, challenge->id);
	evidence->attest_bytes = (uint32_t)quote.attest_bytes;
	memcpy(evidence->attest, quote.attest, quote.attest_bytes);
	evidence->signature_bytes = (uint32_t)quote.signature_bytes;
	memcpy(evidence->signature, quote.signature, quote.signature_bytes);
	evidence->pcr_count = quote.pcr_count;
	memcpy(evidence->pcr_values, quote.pcr_values, (size_t)quote.pcr_count * TPM_PCR_BYTES);
	return SECPOOL_OK;
}

static void run(struct work_item *item)
{
	struct attest *attest = (struct attest *)(void *)item; /* its first member */

	if (attest->phase == PHASE_KEYS)
		attest->error = run_keys(attest);
	else if (attest->phase == PHASE_QUOTE)
		attest->error = run_quote(attest);
	else
		attest->error = SECPOOL_OK;
	msg_set_text(attest->detail, sizeof attest->detail, attest->error ? err_detail() : "");
	if (attest->phase != PHASE_KEYS || (attest->tpm && attest->error)) {
		tpm_close(attest->tpm);
		attest->tpm = NULL;
	}
}

/* ---- on the loop ---- */

static void go(struct attest *attest, enum phase phase)
{
	attest->phase = phase;
	attest->busy = true;
	work_start(attest->device->hotplug->tpm_work, &attest->work);
}

/* The exchange is over, however it ended; another that was asked for meanwhile can start. */
static void leave(struct attest *attest)
{
	struct device *device = attest->device;
	bool again = device->attest_again;

	device->attest = NULL;
	device->attest_again = false;
	free_attest(attest);
	if (again)
		attest_start(device);
}

static void finish(
	struct attest *attest, enum secpool_error result, const char *reason, uint64_t expires_ns)
{
	struct device *device = attest->device;
	char text[ERR_DETAIL_BYTES]; /* reason may lie in what is freed */

	msg_set_text(text, sizeof text, reason);
	leave(attest);
	device_attested(device, result, text, expires_ns);
}

/* Without a verdict; the TPM may still be open, and closing it may wait. */
static void fail(struct attest *attest, enum secpool_error error, const char *reason)
{
	struct device *device = attest->device;
	char text[ERR_DETAIL_BYTES];

	if (!attest->tpm) {
		finish(attest, error, reason, 0);
		return;
	}
	msg_set_text(text, sizeof text, reason);
	attest_drop(device);
	device_attested(device, error, text, 0);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *arg)
{
	struct attest *attest = arg;

	(void)source;
	(void)usec;
	attest->deadline = sd_event_source_disable_unref(attest->deadline);
	fail(attest, SECPOOL_E_TIMEOUT, "keymgrd did not answer in time");
	return 0;
}

static void ask(struct attest *attest, enum phase phase, struct msg *msg)
{
	struct hotplug *hotplug = attest->device->hotplug;

	attest->phase = phase;
	attest->number = notify_request(hotplug->notify, msg);
	if (attest->number == 0) {
		fail(attest, SECPOOL_E_DAEMON_GONE, "keymgrd does not answer");
		return;
	}
	if (sd_event_add_time_relative(hotplug->loop, &attest->deadline, CLOCK_MONOTONIC,
		    (uint64_t)ANSWER_MS * CLOCK_NS_PER_MS / NS_PER_US, 1, on_deadline, attest) < 0)
		fail(attest, SECPOOL_E_SYSTEM, "no timer for keymgrd's answer");
}

/* Why the device may get at this host's own memory; an emulated one is a file. */
static const char *reach_of(const struct device *device)
{
	if (device->identity.kind != MSG_KIND_CXL)
		return "";
	return device->topology ? device->topology->reach : "its function is not known";
}

static void ask_begin(struct attest *attest)
{
	const struct identity *identity = &attest->identity;
	struct msg msg = {.type = MSG_ATTEST_BEGIN};
	struct msg_attest_begin *begin = &msg.u.attest_begin;

	memset(begin, 0, sizeof *begin);
	MSG_SET(begin->id, identity->id);
	MSG_SET(begin->firmware, identity->firmware);
	MSG_SET(begin->serial, identity->serial);
	begin->bytes = identity->bytes;
	MSG_SET(begin->reach, reach_of(attest->device));
	begin->ek_bytes = (uint32_t)attest->ek.bytes;
	memcpy(begin->ek, attest->ek.area, attest->ek.bytes);
	begin->ak_bytes = (uint32_t)attest->ak.bytes;
	memcpy(begin->ak, attest->ak.area, attest->ak.bytes);
	begin->certificate_bytes = (uint32_t)attest->certificate_bytes;
	memcpy(begin->certificate, attest->certificate, attest->certificate_bytes);
	ask(attest, PHASE_CHALLENGE, &msg);
}

/* What the device's TPM measured when it was started: the device's own word, which the verifier replays. */
static enum secpool_error add_log(struct attest *attest)
{
	struct identity_measured measured;
	size_t bytes = 0;
	enum secpool_error error;

	identity_measure(&attest->identity, &measured);
	const struct eventlog_event events[] = {
		{.pcr = 0, .type = EVENTLOG_CRTM_VERSION, .text = measured.firmware},
		{.pcr = 2, .type = EVENTLOG_NONHOST_INFO, .text = measured.device},
	};
	error = eventlog_make(events, sizeof events / sizeof *events, attest->evidence.log, &bytes);
	attest->evidence.log_bytes = (uint32_t)bytes;
	return error;
}

static void ask_verdict(struct attest *attest)
{
	struct msg msg = {.type = MSG_ATTEST_EVIDENCE};
	char reason[ERR_DETAIL_BYTES];
	enum secpool_error error = add_log(attest);

	if (error) {
		snprintf(reason, sizeof reason, "no event log: %.200s", err_detail());
		fail(attest, error, reason);
		return;
	}
	msg.u.attest_evidence = attest->evidence;
	ask(attest, PHASE_VERDICT, &msg);
}

static void done(struct work_item *item)
{
	struct attest *attest = (struct attest *)(void *)item;
	char reason[ERR_DETAIL_BYTES + 32];

	attest->busy = false;
	if (atomic_load_explicit(&attest->dropped, memory_order_relaxed)) {
		if (attest->tpm)
			go(attest, PHASE_CLOSE);
		else
			leave(attest);
		return;
	}
	if (attest->error) {
		snprintf(reason, sizeof reason, "its TPM failed: %s", attest->detail);
		finish(attest,
			attest->error == SECPOOL_E_ATTESTATION ? SECPOOL_E_TPM : attest->error,
			reason, 0);
		return;
	}
	if (attest->phase == PHASE_KEYS)
		ask_begin(attest);
	else
		ask_verdict(attest);
}

void attest_start(struct device *device)
{
	struct attest *attest;

	if (device->attest) {
		attest_drop(device);
		if (device->attest) { /* two users of one TPM would take each other's keys away */
			device->attest_again = true;
			return;
		}
	}
	attest = calloc(1, sizeof *attest);
	if (!attest) {
		device_attested(device, SECPOOL_E_NO_MEMORY, "out of memory", 0);
		return;
	}
	attest->work.run = run;
	attest->work.done = done;
	attest->device = device;
	attest->identity = device->identity;
	memcpy(attest->folder, device->folder, sizeof attest->folder);
	device->attest = attest;
	go(attest, PHASE_KEYS);
}

void attest_drop(struct device *device)
{
	struct attest *attest = device->attest;

	device->attest_again = false;
	if (!attest)
		return;
	atomic_store_explicit(&attest->dropped, true, memory_order_relaxed);
	attest->number = 0;
	attest->deadline = sd_event_source_disable_unref(attest->deadline);
	if (attest->busy)
		return; /* done() sees to the rest */
	if (attest->tpm)
		go(attest, PHASE_CLOSE);
	else
		leave(attest);
}

static struct attest *find(const struct hotplug *hotplug, uint32_t number)
{
	for (struct device *device = hotplug->devices; device; device = device->next)
		if (device->attest && device->attest->number == number)
			return device->attest;
	return NULL;
}

static void take_challenge(struct attest *attest, const struct msg_attest_challenge *challenge)
{
	if (challenge->credential_bytes > sizeof challenge->credential ||
		challenge->secret_bytes > sizeof challenge->secret) {
		fail(attest, SECPOOL_E_PROTOCOL, "keymgrd's challenge has impossible lengths");
		return;
	}
	attest->challenge = *challenge;
	go(attest, PHASE_QUOTE);
}

/* For whoever wants to see it. Without memory there is none to see. */
static void keep_evidence(const struct attest *attest)
{
	const struct msg_attest_evidence *from = &attest->evidence;
	struct device *device = attest->device;
	struct msg_device_evidence *to;

	free(device->evidence);
	device->evidence = to = calloc(1, sizeof *to);
	if (!to)
		return;
	MSG_SET(to->id, device->identity.id);
	to->ak_bytes = (uint32_t)attest->ak.bytes;
	memcpy(to->ak, attest->ak.area, attest->ak.bytes);
	to->attest_bytes = from->attest_bytes;
	memcpy(to->attest, from->attest, sizeof to->attest);
	to->signature_bytes = from->signature_bytes;
	memcpy(to->signature, from->signature, sizeof to->signature);
	memcpy(to->nonce, attest->challenge.nonce, sizeof to->nonce);
	to->pcrs = attest->challenge.pcrs;
	to->pcr_count = from->pcr_count;
	memcpy(to->pcr_values, from->pcr_values, sizeof to->pcr_values);
	to->log_bytes = from->log_bytes;
	memcpy(to->log, from->log, sizeof to->log);
}

static void take_verdict(struct attest *attest, const struct msg_attest_verdict *verdict)
{
	if (verdict->error == SECPOOL_OK)
		keep_evidence(attest);
	if (verdict->error == SECPOOL_OK)
		finish(attest, SECPOOL_OK, "", verdict->expires_ns);
	else
		finish(attest, SECPOOL_E_ATTESTATION,
			verdict->reason[0] ? verdict->reason
					   : err_text(err_from_number(verdict->error)),
			0);
}

/* Refused for good, or not done: only the second is tried again. */
static void take_reply(struct attest *attest, const struct msg_reply *reply)
{
	enum secpool_error error = err_from_number(reply->error);
	char reason[ERR_DETAIL_BYTES];

	if (error == SECPOOL_OK)
		error = SECPOOL_E_PROTOCOL;
	if (error == SECPOOL_E_DENIED)
		error = SECPOOL_E_ATTESTATION;
	msg_set_text(reason, sizeof reason, reply->detail[0] ? reply->detail : err_text(error));
	fail(attest, error, reason);
}

void attest_answer(struct hotplug *hotplug, const struct msg *msg)
{
	struct attest *attest = msg->number ? find(hotplug, msg->number) : NULL;
	const char *id = attest ? attest->device->identity.id : "";

	if (!attest)
		return;
	attest->number = 0;
	attest->deadline = sd_event_source_disable_unref(attest->deadline);
	if (msg->type == MSG_REPLY)
		take_reply(attest, &msg->u.reply);
	else if (msg->type == MSG_ATTEST_CHALLENGE && attest->phase == PHASE_CHALLENGE &&
		 strcmp(msg->u.attest_challenge.id, id) == 0)
		take_challenge(attest, &msg->u.attest_challenge);
	else if (msg->type == MSG_ATTEST_VERDICT && attest->phase == PHASE_VERDICT &&
		 strcmp(msg->u.attest_verdict.id, id) == 0)
		take_verdict(attest, &msg->u.attest_verdict);
	else
		fail(attest, SECPOOL_E_PROTOCOL, "keymgrd's answer does not fit the question");
}
