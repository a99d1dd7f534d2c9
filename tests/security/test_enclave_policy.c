/* SPDX-License-Identifier: Apache-2.0 */
/* What the policy says of devices, through a real enclave and real TPMs: reference values, EK certificates, who is taken in. timeout: 120 */
#include "tests/security/attest_fixture.h"

/* What PCR 4 holds after SHA-256("loader-1"), or of "loader-2", was extended into it: by Python's hashlib. */
#define LOADER_1 "115dd1673f65cce94b07047ee16ffcb744a78e551631dbd172dc87d3289e781d"
#define LOADER_2 "a9c9a08f37506c59cd64841a0be63e37ca68e5548ac560f85e674ec3dd7a8de4"

static int start_with_references(void **state)
{
	(void)state;
	rig_init(&rig);
	rig.more =
		"  pcrs: [4, 0, 2]\n  reference:\n    - {name: loader-one, pcr: 4, "
		"sha256: " LOADER_1 "}\n    - {name: loader-two, pcr: 4, sha256: " LOADER_2 "}\n";
	rig_ok(rig_start(&rig), "start");
	rig_device_init_with(&device, "d0", RIG_FIRMWARE, RIG_FIRMWARE, "loader-1");
	return 0;
}

/* Several versions are allowed, another is not, nor one that measured nothing; and the quote must be about the policy's PCRs. */
static void reference_values_decide(void **state)
{
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence;
	struct rig_device second, third, none;
	struct tpm_quote quote;

	(void)state;
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	assert_int_equal(challenge.pcrs, 0x15);
	rig_answer(&device, &challenge, &evidence);
	assert_int_equal(evidence.pcr_count, 3);
	rig_ok(rig_judge(&rig, &evidence, NULL), "the first version");
	rig_device_init_with(&second, "d1", RIG_FIRMWARE, RIG_FIRMWARE, "loader-2");
	rig_ok(rig_attest(&rig, &second, NULL), "the second version");
	rig_device_init_with(&third, "d2", RIG_FIRMWARE, RIG_FIRMWARE, "loader-3");
	expect_refused(rig_attest(&rig, &third, NULL),
		"the policy lists other values (loader-one, loader-two)");
	rig_device_init(&none, "d3", RIG_FIRMWARE, RIG_FIRMWARE);
	expect_refused(rig_attest(&rig, &none, NULL), "has PCR 4 = 00000000...");
	/* fewer PCRs than were asked for: with the values of all, and with its own */
	for (unsigned i = 0; i < 2; i++) {
		rig_ok(rig_begin(&rig, &device, &challenge), "begin");
		rig_answer(&device, &challenge, &evidence);
		rig_ok(tpm_quote(device.tpm, 0x5, challenge.nonce, sizeof challenge.nonce, &quote),
			"quote");
		memcpy(evidence.attest, quote.attest, sizeof evidence.attest);
		memcpy(evidence.signature, quote.signature, sizeof evidence.signature);
		evidence.attest_bytes = (uint32_t)quote.attest_bytes;
		evidence.signature_bytes = (uint32_t)quote.signature_bytes;
		evidence.pcr_count = i == 0 ? 3 : quote.pcr_count;
		expect_refused(
			rig_judge(&rig, &evidence, NULL), i == 0 ? "other PCRs" : "wrong lengths");
	}
	rig_device_done(&second);
	rig_device_done(&third);
	rig_device_done(&none);
}

/* ---- EK certificates ---- */

static struct authority maker, stranger;
static char ca_lines[256];

/* A policy with the maker's CA; enrol and known lines as they are. */
static int start_with_ca(void **state)
{
	char path[160], pem[8192] = "";

	(void)state;
	rig_init(&rig);
	authority_init(&maker, "maker", NULL, 36500);
	authority_init(&stranger, "stranger", NULL, 36500);
	authority_pem(&maker, pem);
	snprintf(path, sizeof path, "%s/maker.pem", rig.host.folder);
	rig_ok(os_write_file_durable(path, pem, strlen(pem), 0600), "CA file");
	snprintf(ca_lines, sizeof ca_lines, "  ek_ca: [%s]\n", path);
	rig.more = ca_lines;
	rig_ok(rig_start(&rig), "start");
	rig_device_init(&device, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	return 0;
}

static int end_with_ca(void **state)
{
	authority_done(&maker);
	authority_done(&stranger);
	return end(state);
}

static void certificate_decides(void **state)
{
	struct rig_device other;

	(void)state;
	expect_refused(
		rig_attest(&rig, &device, NULL), "EK certificate is refused: the TPM has none");
	certify(&device, &stranger, -1, 1);
	expect_refused(rig_attest(&rig, &device, NULL), "no CA that the policy lists");
	certify(&device, &maker, -9, -1);
	expect_refused(rig_attest(&rig, &device, NULL), "it has expired");
	certify(&device, &maker, 1, 9);
	expect_refused(rig_attest(&rig, &device, NULL), "not valid yet");
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	certify(&device, &maker, -1, 1);
	rig_ok(rig_attest(&rig, &device, NULL), "certified");
	/* another device shows this one's certificate */
	rig_device_init(&other, "d1", RIG_FIRMWARE, RIG_FIRMWARE);
	memcpy(other.claim.certificate, device.claim.certificate, sizeof other.claim.certificate);
	other.claim.certificate_bytes = device.claim.certificate_bytes;
	expect_refused(rig_attest(&rig, &other, NULL), "for another key than this TPM's EK");
	other.claim.certificate_bytes = 4000;
	expect_refused(rig_attest(&rig, &other, NULL), "too long");
	memset(other.claim.certificate, 0x30, sizeof other.claim.certificate);
	other.claim.certificate_bytes = 2000;
	expect_refused(rig_attest(&rig, &other, NULL), "not an X.509 certificate");
	assert_int_equal(check("d0", NULL), SECPOOL_OK);
	rig_device_done(&other);
}

/* The file that the policy names is not there: the enclave does not start, and says why. */
static void missing_ca_file_stops_the_start(void **state)
{
	struct rig bad;

	(void)state;
	rig_init(&bad);
	bad.more = "  ek_ca: [/nowhere/ca.pem]\n";
	assert_int_equal(rig_start(&bad), SECPOOL_E_POLICY);
	assert_non_null(strstr(err_detail(), "/nowhere/ca.pem"));
	rig_done(&bad);
}

/* ---- who is taken in ---- */

static int start_with_operator(void **state)
{
	(void)state;
	rig_init(&rig);
	rig.enrol = "operator";
	rig_ok(rig_start(&rig), "start");
	rig_device_init(&device, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	return 0;
}

static enum secpool_error enrol(const char *id, struct msg *ret_answer)
{
	struct msg msg = {.type = MSG_ENC_DEVICE_ENROL};

	MSG_SET(msg.u.enc_device_enrol.id, id);
	return rig_ask(&rig, &msg, MSG_ATTEST_VERDICT, ret_answer);
}

/* Good evidence alone takes nobody in; the operator takes in the TPM that was proved, and no other. */
static void operator_must_enrol(void **state)
{
	uint8_t name[QUOTE_NAME_BYTES];
	struct msg_attest_challenge challenge;
	struct rig_device other;
	struct msg answer;

	(void)state;
	assert_int_equal(enrol("d0", &answer), SECPOOL_E_NOT_FOUND);
	/* who only names an EK, and proves nothing, is not offered */
	rig_ok(rig_begin(&rig, &device, &challenge), "begin");
	assert_int_equal(enrol("d0", &answer), SECPOOL_E_NOT_FOUND);
	expect_refused(rig_attest(&rig, &device, NULL), "is not enrolled (EK ");
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	rig_ok(enrol("d0", &answer), "enrol");
	rig_ok(quote_public_name(device.claim.ek, device.claim.ek_bytes, name), "name");
	assert_memory_equal(answer.u.attest_verdict.ek_name, name, sizeof name);
	assert_string_equal(answer.u.attest_verdict.serial, "S-d0");
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	rig_ok(rig_attest(&rig, &device, NULL), "enrolled");
	/* another TPM under the same id is refused till the operator changes his mind; then the first one is */
	rig_device_init(&other, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	expect_refused(
		rig_attest(&rig, &other, NULL), "not the one this id was first accepted with");
	rig_ok(rig_attest(&rig, &device, NULL), "the first one still");
	expect_refused(
		rig_attest(&rig, &other, NULL), "not the one this id was first accepted with");
	rig_ok(enrol("d0", &answer), "enrol the other");
	assert_int_equal(check("d0", NULL), SECPOOL_E_NOT_ATTESTED);
	rig_ok(rig_attest(&rig, &other, NULL), "the other");
	expect_refused(
		rig_attest(&rig, &device, NULL), "not the one this id was first accepted with");
	rig_device_done(&other);
}

/* A device whose firmware is not the policy's can't be taken in by enrolling it. */
static void enrolment_is_no_way_round_the_policy(void **state)
{
	struct rig_device old;
	struct msg answer;

	(void)state;
	rig_device_init(&old, "d1", "secpool-emulated-0.9", "secpool-emulated-0.9");
	expect_refused(rig_attest(&rig, &old, NULL), "the policy does not list it");
	assert_int_equal(enrol("d1", &answer), SECPOOL_E_NOT_FOUND);
	rig_device_done(&old);
}

/* Two devices with one serial: the second is refused, also when the first is not there. */
static void serial_has_one_owner(void **state)
{
	struct msg known = {.type = MSG_ENC_DEVICE_KNOWN};
	struct rig_device other;

	(void)state;
	rig_ok(rig_attest(&rig, &device, NULL), "attest");
	rig_device_init_serial(&other, "d1", "S-d0");
	expect_refused(rig_attest(&rig, &other, NULL), "its serial 'S-d0' is that of device d0");
	assert_int_equal(check("d0", NULL), SECPOOL_OK);
	say(MSG_ENC_DEVICE_VOID, "d0");
	expect_refused(rig_attest(&rig, &other, NULL), "its serial 'S-d0' is that of device d0");
	rig_device_done(&other);
	/* one that was known in an earlier run */
	MSG_SET(known.u.enc_device_known.id, "d8");
	MSG_SET(known.u.enc_device_known.serial, "S-d2");
	rig_ok(rig_ask(&rig, &known, MSG_REPLY, NULL), "known");
	rig_device_init(&other, "d2", RIG_FIRMWARE, RIG_FIRMWARE);
	expect_refused(rig_attest(&rig, &other, NULL), "its serial 'S-d2' is that of device d8");
	rig_device_done(&other);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			reference_values_decide, start_with_references, end),
		cmocka_unit_test_setup_teardown(certificate_decides, start_with_ca, end_with_ca),
		cmocka_unit_test(missing_ca_file_stops_the_start),
		cmocka_unit_test_setup_teardown(operator_must_enrol, start_with_operator, end),
		cmocka_unit_test_setup_teardown(
			enrolment_is_no_way_round_the_policy, start_with_operator, end),
		cmocka_unit_test_setup_teardown(serial_has_one_owner, start, end),
	};
	int status = 0;

	if (enclave_is_child(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
