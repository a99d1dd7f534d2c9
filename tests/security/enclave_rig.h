/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real enclave on a real secpool-vtpm for a test that plays the front, the client and the device. Everything is below one folder of its own.
 * Any failure of the rig itself ends the test. Threads: one.
 */
#ifndef SECPOOL_TESTS_SECURITY_ENCLAVE_RIG_H
#define SECPOOL_TESTS_SECURITY_ENCLAVE_RIG_H

#include <sys/mman.h>

#include "enclave/enclave.h"
#include "enclave/eventlog.h"
#include "enclave/quote_verify.h"
#include "enclave/tpm.h"
#include "lib/wire/sock.h"
#include "tests/unit/vtpm_process.h"

#define RIG_FIRMWARE "secpool-emulated-1.0"
#define RIG_WAIT_NS  (20 * CLOCK_NS_PER_S)
enum { RIG_DEVICE_BYTES = 1 << 20, RIG_PATH_BYTES = 128 };

struct rig {
	struct vtpm host;
	char state_dir[RIG_PATH_BYTES];
	char socket_path[RIG_PATH_BYTES];
	struct enclave enclave;
	const char *enrol; /* of the policy's devices; NULL: first-use */
	char audit[RIG_PATH_BYTES + 16]; /* the file that its records are kept in */
	bool audit_full;            /* every record is refused */
	bool recovery;              /* the store gets a recovery key, which nobody sees */
	const char *more;  /* more lines of them, each with two blanks and its end; NULL: none */
};

/* A device: its TPM, open, with what it sends. */
struct rig_device {
	struct vtpm vtpm;
	struct tpm *tpm;
	struct msg_attest_begin claim;
	char firmware[128], identity[128]; /* what its TPM measured, and its log says */
	char loader[32]; /* the same, in PCR 4; empty: nothing */
};

static inline void rig_ok(enum secpool_error error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "enclave_rig.h: %s: %s: %s\n", what, err_name(error), err_detail());
	exit(1);
}

static inline void rig_init(struct rig *rig)
{
	memset(rig, 0, sizeof *rig);
	rig->enclave.socket = rig->enclave.listener = -1;
	vtpm_init(&rig->host);
	vtpm_start(&rig->host, (const char *const[]){"--provision", NULL});
	snprintf(rig->state_dir, sizeof rig->state_dir, "%s/keys", rig->host.folder);
	snprintf(rig->audit, sizeof rig->audit, "%s/audit", rig->state_dir);
	snprintf(rig->socket_path, sizeof rig->socket_path, "%s/keymgr.sock", rig->host.folder);
	rig_ok(os_make_dir(rig->state_dir, 0700), "state folder");
	if (chmod(rig->host.folder, 0711) != 0)
		vtpm_fail("chmod");
}

/* As enclave_audit.keep: the rig is the front. */
static inline enum secpool_error rig_keep(void *arg, const char *line, bool wait)
{
	const struct rig *rig = arg;
	enum secpool_error error = SECPOOL_OK;
	FILE *file;

	(void)wait;
	if (line[0] == '\0') /* nothing but the wait */
		return SECPOOL_OK;
	if (rig->audit_full)
		return err_set(SECPOOL_E_NO_SPACE, "the rig's disk is full");
	file = fopen(rig->audit, "ae");
	if (!file || fprintf(file, "%s\n", line) < 0)
		error = os_error("%s", rig->audit);
	if (file && fclose(file) != 0)
		error = os_error("%s", rig->audit);
	return error;
}

/* Starts the enclave with a policy that has a tenant "mine" for the caller, "theirs" for user 65533 and "third" for 65532. */
static inline enum secpool_error rig_start_with(
	struct rig *rig, unsigned session_seconds, const char *tpm, bool store_exists)
{
	char text[4096];
	int count = snprintf(text, sizeof text,
		"version: 1\ngrace_seconds: 60\nsession_seconds: %u\nhost_pcrs: [0, 2, 4, 7]\nrecovery: %s\n"
		"allow: {memfd_without_secret: true}\n"
		"tenants:\n"
		"  - name: mine\n    users: [\"%%self\"]\n"
		"    quota: {bytes: 1G, regions: 64, sessions: 64, local_bytes: 64M}\n"
		"  - name: theirs\n    users: [\"65533\"]\n"
		"    quota: {bytes: 1G, regions: 64, sessions: 64, local_bytes: 64M}\n"
		"  - name: third\n    users: [\"65532\"]\n"
		"    quota: {bytes: 1G, regions: 64, sessions: 64, local_bytes: 64M}\n"
		"devices:\n  enrol: %s\n  max_age_seconds: 600\n  firmware: [" RIG_FIRMWARE "]\n%s",
		session_seconds, rig->recovery ? "key" : "none", rig->enrol ? rig->enrol : "first-use", rig->more ? rig->more : "");
	struct enclave_options options = {.policy_fd = memfd_create("policy", MFD_CLOEXEC),
		.policy_name = "rig.yaml",
		.tpm = tpm,
		.state_dir = rig->state_dir,
		.socket_path = rig->socket_path,
		.audit = {.keep = rig_keep, .arg = rig},
		.recovery_fd = rig->recovery ? open("/dev/null", O_WRONLY | O_CLOEXEC) : 0,
		.store_exists = store_exists};
	enum secpool_error error;

	rig_ok(os_write_all(options.policy_fd, text, (size_t)count), "policy");
	error = enclave_start(&options, &rig->enclave);
	os_close(&options.policy_fd);
	if (rig->recovery)
		os_close(&options.recovery_fd);
	return error;
}

static inline enum secpool_error rig_start(struct rig *rig)
{
	return rig_start_with(rig, 0, rig->host.where, false);
}

static inline void rig_done(struct rig *rig)
{
	enclave_stop(&rig->enclave);
	vtpm_done(&rig->host);
}

/* One request to the enclave. */
static inline enum secpool_error rig_ask(
	struct rig *rig, struct msg *request, uint32_t want, struct msg *ret_answer)
{
	struct msg answer;
	enum secpool_error error = enclave_exchange(rig->enclave.socket, &rig->enclave.audit,
		request, NULL, 0, want, &answer, RIG_WAIT_NS);

	if (!error)
		error = sock_answer_error(&answer);
	if (!error && ret_answer)
		*ret_answer = answer;
	return error;
}

/* A client's connection: its own end and the front's. */
static inline void rig_connect(struct rig *rig, int *ret_client, int *ret_front)
{
	rig_ok(sock_connect(rig->socket_path, ret_client), "connect");
	rig_ok(sock_want_credentials(*ret_client), "credentials");
	rig_ok(sock_accept(rig->enclave.listener, ret_front), "accept");
}

/* Passes the front's end to the enclave; closes it here. */
static inline enum secpool_error rig_session(
	struct rig *rig, const char *tenant, int *front, struct msg *ret_answer)
{
	struct msg open = {.type = MSG_ENC_SESSION_OPEN};
	enum secpool_error error;

	MSG_SET(open.u.enc_session_open.tenant, tenant);
	error = enclave_exchange(rig->enclave.socket, &rig->enclave.audit, &open, front, 1,
		MSG_ENC_SESSION_OPENED, ret_answer, RIG_WAIT_NS);
	if (!error)
		error = sock_answer_error(ret_answer);
	os_close(front);
	return error;
}

/* A key as it is asked for, made and sent. */
static inline enum secpool_error rig_key_as(
	struct rig *rig, struct msg *create, struct msg *ret_answer)
{
	struct msg send = {.type = MSG_ENC_KEYS_SEND}, sent;
	enum secpool_error error = rig_ask(rig, create, MSG_ENC_KEY_WRAPPED, ret_answer);

	send.u.enc_keys_send.count = 1;
	send.u.enc_keys_send.regions[0] = create->u.enc_key_create.region;
	send.u.enc_keys_send.epochs[0] = create->u.enc_key_create.epoch;
	if (!error)
		error = rig_ask(rig, &send, MSG_ENC_KEYS_SENT, &sent);
	return error ? error : err_from_number((uint32_t)sent.u.enc_keys_sent.errors[0]);
}

static inline enum secpool_error rig_key(struct rig *rig, uint64_t session, uint64_t region,
	const char *device, struct msg *ret_answer)
{
	struct msg create = {.type = MSG_ENC_KEY_CREATE};

	create.u.enc_key_create.session = session;
	create.u.enc_key_create.region = region;
	create.u.enc_key_create.epoch = 1;
	create.u.enc_key_create.page_bytes = 4096;
	create.u.enc_key_create.device_count = 1;
	msg_set_text((char *)create.u.enc_key_create.devices, MSG_NAME_BYTES, device);
	return rig_key_as(rig, &create, ret_answer);
}

/* ---- devices ---- */

/* Starts the device's TPM, which measures what it is; --provision: it is new. */
static inline void rig_device_power(struct rig_device *device, const char *provision)
{
	char first[160], second[160], third[160];
	const char *args[8] = {"--extend", first, "--extend", second};
	unsigned count = 4;

	snprintf(first, sizeof first, "0:%s", device->firmware);
	snprintf(second, sizeof second, "2:%s", device->identity);
	snprintf(third, sizeof third, "4:%s", device->loader);
	if (device->loader[0]) {
		args[count++] = "--extend";
		args[count++] = third;
	}
	args[count] = provision;
	vtpm_start(&device->vtpm, args);
	rig_ok(tpm_open(device->vtpm.where, &device->tpm), "device's TPM");
}

/* What a device is beside its id; NULL: as RIG_FIRMWARE, "S-<id>" and nothing. */
struct rig_says {
	const char *firmware;
	const char *measured; /* the firmware that its TPM really measured */
	const char *loader;   /* what it measured into PCR 4 */
	const char *serial;
};

static inline void rig_device_init_as(
	struct rig_device *device, const char *id, const struct rig_says *says)
{
	const char *firmware = says->firmware ? says->firmware : RIG_FIRMWARE;
	struct msg_attest_begin *claim = &device->claim;
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm_public ek, ak;
	size_t bytes = 0;

	memset(device, 0, sizeof *device);
	MSG_SET(claim->id, id);
	MSG_SET(claim->firmware, firmware);
	claim->bytes = RIG_DEVICE_BYTES;
	snprintf(claim->serial, sizeof claim->serial, "S-%s", id);
	if (says->serial)
		MSG_SET(claim->serial, says->serial);
	snprintf(device->firmware, sizeof device->firmware, "firmware:%s",
		says->measured ? says->measured : firmware);
	snprintf(device->identity, sizeof device->identity, "device:%s:%d:%s", id,
		(int)RIG_DEVICE_BYTES, claim->serial);
	if (says->loader)
		snprintf(device->loader, sizeof device->loader, "%s", says->loader);
	vtpm_init(&device->vtpm);
	rig_device_power(device, "--provision");
	rig_ok(tpm_attestation_key(device->tpm, blob, &bytes, &ek, &ak), "device's AK");
	claim->ek_bytes = (uint32_t)ek.bytes;
	memcpy(claim->ek, ek.area, sizeof claim->ek);
	claim->ak_bytes = (uint32_t)ak.bytes;
	memcpy(claim->ak, ak.area, sizeof claim->ak);
}

static inline void rig_device_init_with(struct rig_device *device, const char *id,
	const char *firmware, const char *measured, const char *loader)
{
	const struct rig_says says = {.firmware = firmware, .measured = measured, .loader = loader};

	rig_device_init_as(device, id, &says);
}

static inline void rig_device_init(
	struct rig_device *device, const char *id, const char *firmware, const char *measured)
{
	rig_device_init_with(device, id, firmware, measured, "");
}

static inline void rig_device_init_serial(
	struct rig_device *device, const char *id, const char *serial)
{
	rig_device_init_as(device, id, &(struct rig_says){.serial = serial});
}

static inline void rig_device_done(struct rig_device *device)
{
	tpm_close(device->tpm);
	vtpm_done(&device->vtpm);
}

static inline enum secpool_error rig_begin(
	struct rig *rig, const struct rig_device *device, struct msg_attest_challenge *ret_challenge)
{
	struct msg msg = {.type = MSG_ATTEST_BEGIN};
	enum secpool_error error;

	msg.u.attest_begin = device->claim;
	error = rig_ask(rig, &msg, MSG_ATTEST_CHALLENGE, &msg);
	if (!error)
		*ret_challenge = msg.u.attest_challenge;
	return error;
}

/* The log of what its TPM measured, into the evidence. */
static inline void rig_log(const char *firmware, const char *identity, const char *loader,
	struct msg_attest_evidence *evidence)
{
	const struct eventlog_event events[] = {
		{.pcr = 0, .type = EVENTLOG_CRTM_VERSION, .text = firmware},
		{.pcr = 2, .type = EVENTLOG_NONHOST_INFO, .text = identity},
		{.pcr = 4, .type = EVENTLOG_NONHOST_INFO, .text = loader},
	};
	size_t bytes = 0;

	memset(evidence->log, 0, sizeof evidence->log);
	rig_ok(eventlog_make(events, loader[0] ? 3 : 2, evidence->log, &bytes), "log");
	evidence->log_bytes = (uint32_t)bytes;
}

/* What an honest device quotes over: its media are those that the challenge was written to. */
static inline const uint8_t *rig_nonce(const struct msg_attest_challenge *challenge)
{
	static uint8_t bound[TPM_NONCE_BYTES];

	rig_ok(tpm_bind_nonce(challenge->nonce, challenge->media, bound), "nonce");
	return bound;
}

/* The device's honest answer to a challenge. */
static inline void rig_answer(struct rig_device *device,
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *ret_evidence)
{
	size_t activated_bytes = 0;
	struct tpm_quote quote;

	memset(ret_evidence, 0, sizeof *ret_evidence);
	memcpy(ret_evidence->id, challenge->id, sizeof ret_evidence->id);
	rig_ok(tpm_activate(device->tpm, challenge->credential, challenge->credential_bytes,
		       challenge->secret, challenge->secret_bytes, ret_evidence->activated,
		       &activated_bytes),
		"activate");
	rig_ok(tpm_quote(device->tpm, challenge->pcrs, rig_nonce(challenge), TPM_NONCE_BYTES,
		       &quote),
		"quote");
	ret_evidence->activated_bytes = (uint32_t)activated_bytes;
	ret_evidence->attest_bytes = (uint32_t)quote.attest_bytes;
	memcpy(ret_evidence->attest, quote.attest, sizeof ret_evidence->attest);
	ret_evidence->signature_bytes = (uint32_t)quote.signature_bytes;
	memcpy(ret_evidence->signature, quote.signature, sizeof ret_evidence->signature);
	ret_evidence->pcr_count = quote.pcr_count;
	memcpy(ret_evidence->pcr_values, quote.pcr_values, sizeof ret_evidence->pcr_values);
	rig_log(device->firmware, device->identity, device->loader, ret_evidence);
}

/* The verdict's error, with its reason as err_detail. */
static inline enum secpool_error rig_judge(
	struct rig *rig, const struct msg_attest_evidence *evidence, struct msg *ret_verdict)
{
	struct msg msg = {.type = MSG_ATTEST_EVIDENCE};
	enum secpool_error error;

	msg.u.attest_evidence = *evidence;
	rig_ok(rig_ask(rig, &msg, MSG_ATTEST_VERDICT, &msg), "evidence");
	if (ret_verdict)
		*ret_verdict = msg;
	error = err_from_number(msg.u.attest_verdict.error);
	return error ? err_set(error, "%s", msg.u.attest_verdict.reason) : SECPOOL_OK;
}

static inline enum secpool_error rig_attest(
	struct rig *rig, struct rig_device *device, struct msg *ret_verdict)
{
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence;
	enum secpool_error error = rig_begin(rig, device, &challenge);

	if (error)
		return error;
	rig_answer(device, &challenge, &evidence);
	return rig_judge(rig, &evidence, ret_verdict);
}

#endif
