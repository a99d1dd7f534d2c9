/* SPDX-License-Identifier: Apache-2.0 */
/* Attestation through a real enclave and real TPMs: what is accepted, and every way of cheating that is refused with its own reason. timeout: 120 */
#include "tests/security/attest_fixture.h"

#include <tss2/tss2_mu.h>

static void good_device_is_accepted(void **state)
{
	uint8_t name[QUOTE_NAME_BYTES];
	struct msg verdict, checked;

	(void)state;
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	rig_ok(rig_attest(&rig, &device, &verdict), "attest");
	rig_ok(quote_public_name(device.claim.ek, device.claim.ek_bytes, name), "name");
	assert_memory_equal(verdict.u.attest_verdict.ek_name, name, sizeof name);
	assert_in_range(verdict.u.attest_verdict.expires_ns, clock_now_ns() + 590 * CLOCK_NS_PER_S,
		clock_now_ns() + 600 * CLOCK_NS_PER_S);
	assert_int_equal(check("d0", &checked), SECPOOL_OK);
	assert_int_equal(checked.u.attest_verdict.expires_ns, verdict.u.attest_verdict.expires_ns);
	assert_int_equal(check("d1", NULL), SECPOOL_E_NOT_ATTESTED);
	say(MSG_ENC_DEVICE_VOID, "d0");
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	rig_ok(rig_attest(&rig, &device, NULL), "again");
}

static void key_needs_fresh_devices(void **state)
{
	struct msg opened, wrapped;
	int client = -1, front = -1;
	uint64_t session;

	(void)state;
	rig_connect(&rig, &client, &front);
	rig_ok(rig_session(&rig, "mine", &front, &opened), "session");
	session = opened.u.enc_session_opened.session;
	assert_int_equal(rig_key(&rig, session, 1, "d0", &wrapped), SECPOOL_E_NOT_ATTESTED);
	assert_non_null(strstr(err_detail(), "d0"));
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	assert_int_equal(rig_key(&rig, session, 1, "d0", &wrapped), SECPOOL_OK);
	assert_int_equal(rig_key(&rig, session, 1, "d0", &wrapped), SECPOOL_E_EXISTS);
	say(MSG_ENC_DEVICE_VOID, "d0");
	assert_int_equal(rig_key(&rig, session, 2, "d0", &wrapped), SECPOOL_E_NOT_ATTESTED);
	os_close(&client);
}

static void replayed_evidence_is_refused(void **state)
{
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence, old;

	(void)state;
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	rig_answer(&device, &challenge, &old);
	rig_ok(rig_judge(&rig, &old, NULL), "first time");
	expect_refused(rig_judge(&rig, &old, NULL), "no challenge is open");
	/* it was not about the device: what was good stays good */
	assert_int_equal(check("d0", NULL), SECPOOL_OK);
	/* the old quote with the new secret: the nonce is another */
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	rig_answer(&device, &challenge, &evidence);
	memcpy(evidence.attest, old.attest, sizeof evidence.attest);
	evidence.attest_bytes = old.attest_bytes;
	memcpy(evidence.signature, old.signature, sizeof evidence.signature);
	evidence.signature_bytes = old.signature_bytes;
	expect_refused(rig_judge(&rig, &evidence, NULL), "nonce");
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
}

/* A device whose record can't be kept is not taken in, and not refused either: it proves itself again when there is room. */
static void nothing_is_attested_without_its_record(void **state)
{
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence;
	struct msg request = {.type = MSG_ATTEST_EVIDENCE};

	(void)state;
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	rig_answer(&device, &challenge, &evidence);
	request.u.attest_evidence = evidence;
	rig.audit_full = true;
	assert_int_equal(rig_ask(&rig, &request, MSG_ATTEST_VERDICT, NULL), SECPOOL_E_NO_SPACE);
	assert_non_null(strstr(err_detail(), "audit record can't be kept"));
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	rig.audit_full = false;
	rig_ok(rig_attest(&rig, &device, NULL), "again");
	assert_int_equal(check("d0", NULL), SECPOOL_OK);
}

static void changed_evidence_is_refused(void **state)
{
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence;

	(void)state;
	for (unsigned i = 0; i < 9; i++) {
		rig_ok(rig_begin(&rig, &device, &challenge), "begin");
		rig_answer(&device, &challenge, &evidence);
		if (i == 0)
			evidence.activated[0] ^= 1;
		else if (i == 1)
			evidence.activated_bytes = 0;
		else if (i == 2)
			evidence.attest[evidence.attest_bytes - 1] ^= 1;
		else if (i == 3)
			evidence.signature[evidence.signature_bytes - 1] ^= 1;
		else if (i == 4)
			evidence.pcr_values[0] ^= 1;
		else if (i == 5)
			evidence.pcr_count = 1;
		else if (i == 6)
			evidence.attest_bytes = 4000;
		else if (i == 7)
			evidence.log_bytes = 4000;
		else
			evidence.log_bytes--;
		expect_refused(rig_judge(&rig, &evidence, NULL), "");
		assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	}
	rig_ok(rig_attest(&rig, &device, NULL), "the honest one is still welcome");
}

static void other_firmware_is_refused(void **state)
{
	struct rig_device liar, old;

	(void)state;
	rig_device_init(&liar, "d1", RIG_FIRMWARE, "secpool-emulated-evil");
	expect_refused(
		rig_attest(&rig, &liar, NULL), "but its measured log says 'secpool-emulated-evil'");
	rig_device_init(&old, "d2", "secpool-emulated-0.9", "secpool-emulated-0.9");
	expect_refused(rig_attest(&rig, &old, NULL), "secpool-emulated-0.9");
	/* an honest TPM under another id, or with another size, than was measured */
	MSG_SET(device.claim.id, "d9");
	expect_refused(rig_attest(&rig, &device, NULL), "its measured log is that of device 'd0'");
	MSG_SET(device.claim.id, "d0");
	device.claim.bytes *= 2;
	expect_refused(rig_attest(&rig, &device, NULL),
		"it has 2097152 bytes, but its measured log says 1048576");
	rig_device_done(&liar);
	rig_device_done(&old);
}

/* A log of other facts, of what was not measured, or cut: none of them is believed, each refusal says which it is. */
static void log_must_replay(void **state)
{
	static const struct {
		const char *firmware, *identity, *reason;
	} cases[] = {
		{"firmware:" RIG_FIRMWARE, "device:d0:2097152:S-d0", "it gives PCR 2"},
		{"firmware:" RIG_FIRMWARE, "device:d0:1048576:S-other", "it gives PCR 2"},
		{"firmware:other", "device:d0:1048576:S-d0", "it gives PCR 0"},
		{"firmware: " RIG_FIRMWARE, "device:d0:1048576:S-d0",
			"event of the firmware is malformed"},
		{"firmware:" RIG_FIRMWARE, "device:d0:1048576", "event of the device is malformed"},
	};
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence;

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		rig_ok(rig_begin(&rig, &device, &challenge), "begin");
		rig_answer(&device, &challenge, &evidence);
		rig_log(cases[i].firmware, cases[i].identity, "", &evidence);
		expect_refused(rig_judge(&rig, &evidence, NULL), cases[i].reason);
		assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	}
	/* a text that another was hashed for: its digest is the measured one */
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	rig_answer(&device, &challenge, &evidence);
	evidence.log[evidence.log_bytes - 1] ^= 1;
	expect_refused(
		rig_judge(&rig, &evidence, NULL), "text of the device is not what was measured");
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	rig_answer(&device, &challenge, &evidence);
	evidence.log_bytes = 0;
	expect_refused(rig_judge(&rig, &evidence, NULL), "it has no header");
	MSG_SET(device.claim.serial, "S-other");
	expect_refused(rig_attest(&rig, &device, NULL), "but its measured log says 'S-d0'");
	MSG_SET(device.claim.serial, "S-d0");
	rig_ok(rig_attest(&rig, &device, NULL), "the honest one is still welcome");
}

/* A second TPM under an id that is known, and one TPM under two ids. */
static void identities_are_kept(void **state)
{
	struct msg known = {.type = MSG_ENC_DEVICE_KNOWN};
	struct rig_device other;
	struct msg verdict;

	(void)state;
	rig_ok(rig_attest(&rig, &device, &verdict), "attest");
	rig_device_init(&other, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	expect_refused(
		rig_attest(&rig, &other, NULL), "not the one this id was first accepted with");
	rig_ok(rig_attest(&rig, &device, &verdict), "the first one again");
	MSG_SET(device.claim.id, "d5");
	expect_refused(rig_attest(&rig, &device, NULL), "its measured log is that of device 'd0'");
	MSG_SET(known.u.enc_device_known.id, "d0");
	memcpy(known.u.enc_device_known.ek_name, verdict.u.attest_verdict.ek_name,
		QUOTE_NAME_BYTES);
	assert_int_equal(rig_ask(&rig, &known, MSG_REPLY, NULL), SECPOOL_OK);
	known.u.enc_device_known.ek_name[5] ^= 1;
	assert_int_equal(rig_ask(&rig, &known, MSG_REPLY, NULL), SECPOOL_E_EXISTS);
	MSG_SET(known.u.enc_device_known.id, "d7");
	assert_int_equal(rig_ask(&rig, &known, MSG_REPLY, NULL), SECPOOL_OK);
	MSG_SET(other.claim.id, "d7");
	expect_refused(rig_attest(&rig, &other, NULL), "d7");
	rig_device_done(&other);
}

/* One TPM's evidence for another's challenge: relayed keys don't help. */
static void relayed_challenge_is_refused(void **state)
{
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence;
	struct rig_device other;
	uint8_t secret[64];
	size_t bytes = 0;

	(void)state;
	rig_device_init(&other, "d1", RIG_FIRMWARE, RIG_FIRMWARE);
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	assert_int_equal(tpm_activate(other.tpm, challenge.credential, challenge.credential_bytes,
				 challenge.secret, challenge.secret_bytes, secret, &bytes),
		SECPOOL_E_TPM);
	rig_answer(&device, &challenge, &evidence);
	MSG_SET(evidence.id, "d1");
	expect_refused(rig_judge(&rig, &evidence, NULL), "no challenge is open");
	rig_device_done(&other);
}

static size_t marshalled(const TPM2B_PUBLIC *area, uint8_t *to)
{
	size_t used = 0;

	assert_int_equal(Tss2_MU_TPM2B_PUBLIC_Marshal(area, to, TPM_PUBLIC_BYTES, &used), 0);
	return used;
}

/* An AK of another TPM, one that is not restricted, and a key that no TPM has. */
static void foreign_keys_are_refused(void **state)
{
	struct msg_attest_begin good = device.claim;
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence;
	struct rig_device other;
	TPM2B_PUBLIC area = {.size = 0};
	uint8_t secret[64];
	size_t bytes = 0;

	(void)state;
	/* another TPM's AK beside this EK: the credential opens in neither */
	rig_device_init(&other, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	memcpy(device.claim.ak, other.claim.ak, sizeof device.claim.ak);
	device.claim.ak_bytes = other.claim.ak_bytes;
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	assert_int_equal(tpm_activate(device.tpm, challenge.credential, challenge.credential_bytes,
				 challenge.secret, challenge.secret_bytes, secret, &bytes),
		SECPOOL_E_TPM);
	assert_int_equal(tpm_activate(other.tpm, challenge.credential, challenge.credential_bytes,
				 challenge.secret, challenge.secret_bytes, secret, &bytes),
		SECPOOL_E_TPM);
	memset(&evidence, 0, sizeof evidence);
	MSG_SET(evidence.id, "d0");
	evidence.activated_bytes = QUOTE_SECRET_BYTES;
	expect_refused(rig_judge(&rig, &evidence, NULL), "did not open the credential");
	/* the right credential, and a quote by the other's AK */
	device.claim = good;
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	rig_answer(&device, &challenge, &evidence);
	struct tpm_quote quote;
	rig_ok(tpm_quote(other.tpm, challenge.pcrs, rig_nonce(&challenge), TPM_NONCE_BYTES, &quote),
		"quote");
	memcpy(evidence.attest, quote.attest, sizeof evidence.attest);
	evidence.attest_bytes = (uint32_t)quote.attest_bytes;
	memcpy(evidence.signature, quote.signature, sizeof evidence.signature);
	evidence.signature_bytes = (uint32_t)quote.signature_bytes;
	expect_refused(rig_judge(&rig, &evidence, NULL), "signature is not by this AK");
	/* a key that signs anything */
	assert_int_equal(
		Tss2_MU_TPM2B_PUBLIC_Unmarshal(good.ak, good.ak_bytes, &(size_t){0}, &area), 0);
	area.publicArea.objectAttributes &= ~(TPMA_OBJECT)TPMA_OBJECT_RESTRICTED;
	device.claim.ak_bytes = (uint32_t)marshalled(&area, device.claim.ak);
	expect_refused(rig_begin(&rig, &device, &challenge), "it is not restricted");
	device.claim = good;
	rig_ok(rig_attest(&rig, &device, NULL), "the honest one is still welcome");
	rig_device_done(&other);
}

/* What is measured after a good verdict ends it at the next attestation; so does a start with other firmware that says the old one's name. */
static void changes_after_attestation_are_seen(void **state)
{
	uint8_t blob[TPM_BLOB_BYTES];
	struct tpm_public ek, ak;
	size_t bytes = 0;

	(void)state;
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	rig_ok(tpm_extend(device.tpm, 0, "patched at run time"), "extend");
	assert_int_equal(check("d0", NULL), SECPOOL_OK);
	expect_refused(rig_attest(&rig, &device, NULL), "it gives PCR 0");
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	tpm_close(device.tpm);
	vtpm_end(&device.vtpm, SIGTERM);
	snprintf(device.firmware, sizeof device.firmware, "firmware:other");
	rig_device_power(&device, NULL);
	rig_ok(tpm_attestation_key(device.tpm, blob, &bytes, &ek, &ak), "AK");
	device.claim.ak_bytes = (uint32_t)ak.bytes;
	memcpy(device.claim.ak, ak.area, sizeof device.claim.ak);
	expect_refused(rig_attest(&rig, &device, NULL), "but its measured log says 'other'");
	snprintf(device.firmware, sizeof device.firmware, "firmware:" RIG_FIRMWARE);
	expect_refused(rig_attest(&rig, &device, NULL), "it gives PCR 0");
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
}

static void garbage_keys_are_refused(void **state)
{
	struct msg_attest_challenge challenge;
	struct msg_attest_begin good = device.claim;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		device.claim = good;
		if (i == 0)
			device.claim.ek_bytes = 513;
		else if (i == 1)
			memset(device.claim.ek, 0xff, sizeof device.claim.ek);
		else if (i == 2)
			device.claim.ak_bytes = 0;
		else if (i == 3)
			device.claim.ak[7] ^= 0xff;
		else
			memset(device.claim.id, 0, sizeof device.claim.id);
		expect_refused(rig_begin(&rig, &device, &challenge), "");
	}
	device.claim = good;
	rig_ok(rig_attest(&rig, &device, NULL), "the verifier still works");
}

/* A verifier that is killed, or hangs, refuses; the enclave goes on. */
static void dead_verifier_refuses(void **state)
{
	char path[64], *text = NULL;
	struct msg status = {.type = MSG_ENC_STATUS};
	struct msg_attest_challenge challenge;
	uint64_t start_ns = clock_now_ns();
	size_t bytes = 0;

	(void)state;
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)rig.enclave.pid,
		(int)rig.enclave.pid);
	rig_ok(os_read_file(path, 4096, &text, &bytes), "children");
	pid_t verifier = (pid_t)strtol(text, NULL, 10);
	free(text);
	assert_int_equal(kill(verifier, *state ? SIGSTOP : SIGKILL), 0);
	expect_refused(rig_begin(&rig, &device, &challenge), "verifier process failed");
	assert_true(clock_now_ns() - start_ns < 5 * CLOCK_NS_PER_S);
	expect_refused(rig_begin(&rig, &device, &challenge), "until secpool-keymgrd is restarted");
	rig_ok(rig_ask(&rig, &status, MSG_ENC_STATUS_REPLY, &status), "the enclave goes on");
}

static void reset_counter_never_goes_back(void **state)
{
	char command[256];

	(void)state;
	/* an old state of the TPM is put back: the same EK and measurements, an older counter */
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	tpm_close(device.tpm);
	vtpm_end(&device.vtpm, SIGTERM);
	snprintf(command, sizeof command, "cp -a %s/state %s/old", device.vtpm.folder,
		device.vtpm.folder);
	assert_int_equal(system(command), 0);
	for (unsigned i = 0; i < 4; i++) {
		rig_device_power(&device, NULL);
		uint8_t blob[TPM_BLOB_BYTES];
		struct tpm_public ek, ak;
		size_t bytes = 0;
		rig_ok(tpm_attestation_key(device.tpm, blob, &bytes, &ek, &ak), "AK");
		device.claim.ak_bytes = (uint32_t)ak.bytes;
		memcpy(device.claim.ak, ak.area, sizeof device.claim.ak);
		if (i < 3) {
			rig_ok(rig_attest(&rig, &device, NULL), "after a restart");
			tpm_close(device.tpm);
			vtpm_end(&device.vtpm, SIGTERM);
		} else {
			expect_refused(rig_attest(&rig, &device, NULL), "reset counter went back");
		}
		if (i == 2) {
			snprintf(command, sizeof command, "rm -r %s/state && mv %s/old %s/state",
				device.vtpm.folder, device.vtpm.folder, device.vtpm.folder);
			assert_int_equal(system(command), 0);
		}
	}
}

int main(int argc, char **argv)
{
	static int stop = SIGSTOP;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(good_device_is_accepted, start, end),
		cmocka_unit_test_setup_teardown(key_needs_fresh_devices, start, end),
		cmocka_unit_test_setup_teardown(replayed_evidence_is_refused, start, end),
		cmocka_unit_test_setup_teardown(changed_evidence_is_refused, start, end),
		cmocka_unit_test_setup_teardown(other_firmware_is_refused, start, end),
		cmocka_unit_test_setup_teardown(log_must_replay, start, end),
		cmocka_unit_test_setup_teardown(identities_are_kept, start, end),
		cmocka_unit_test_setup_teardown(relayed_challenge_is_refused, start, end),
		cmocka_unit_test_setup_teardown(foreign_keys_are_refused, start, end),
		cmocka_unit_test_setup_teardown(changes_after_attestation_are_seen, start, end),
		cmocka_unit_test_setup_teardown(nothing_is_attested_without_its_record, start, end),
		cmocka_unit_test_setup_teardown(garbage_keys_are_refused, start, end),
		cmocka_unit_test_setup_teardown(reset_counter_never_goes_back, start, end),
		cmocka_unit_test_setup_teardown(dead_verifier_refuses, start, end),
		cmocka_unit_test_prestate_setup_teardown(dead_verifier_refuses, start, end, &stop),
	};
	int status = 0;

	if (enclave_is_child(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
