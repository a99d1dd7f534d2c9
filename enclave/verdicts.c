/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/verdicts.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "enclave/secmem.h"

static bool same_name(const uint8_t *a, const uint8_t *b)
{
	return CRYPTO_memcmp(a, b, QUOTE_NAME_BYTES) == 0;
}

static struct verdicts_device *find(const struct verdicts *verdicts, const char *id)
{
	for (size_t i = 0; i < VERDICTS_DEVICES_MOST; i++)
		if (id[0] != '\0' && strcmp(verdicts->devices[i].id, id) == 0)
			return (struct verdicts_device *)&verdicts->devices[i];
	return NULL;
}

/* The id's place or a free one; NULL when all are taken. */
static struct verdicts_device *place_for(struct verdicts *verdicts, const char *id)
{
	struct verdicts_device *device = find(verdicts, id);

	for (size_t i = 0; i < VERDICTS_DEVICES_MOST && !device; i++)
		if (verdicts->devices[i].id[0] == '\0')
			device = &verdicts->devices[i];
	return device;
}

static struct verdicts_counter *counter_for(struct verdicts *verdicts, const uint8_t *ek_name)
{
	struct verdicts_counter *free_one = NULL;

	for (size_t i = 0; i < VERDICTS_DEVICES_MOST; i++) {
		struct verdicts_counter *counter = &verdicts->counters[i];
		if (counter->used && same_name(counter->ek_name, ek_name))
			return counter;
		if (!counter->used && !free_one)
			free_one = counter;
	}
	return free_one;
}

static enum secpool_error too_many(const char *id)
{
	return err_set(SECPOOL_E_LIMIT, "device %s: more than %d devices were seen in this run", id,
		(int)VERDICTS_DEVICES_MOST);
}

enum secpool_error verdicts_know(struct verdicts *verdicts, const char *id,
	const uint8_t ek_name[QUOTE_NAME_BYTES], const char *serial, uint64_t resets)
{
	struct verdicts_device *device = place_for(verdicts, id);
	struct verdicts_counter *counter = counter_for(verdicts, ek_name);

	if (id[0] == '\0')
		return err_set(SECPOOL_E_INVALID, "a device without an id");
	if (!device || !counter)
		return too_many(id);
	if (device->known && !same_name(device->ek_name, ek_name))
		return err_set(SECPOOL_E_EXISTS, "device %s is known with another EK", id);
	if (!device->known) {
		MSG_SET(device->id, id);
		memcpy(device->ek_name, ek_name, QUOTE_NAME_BYTES);
		device->known = true;
		MSG_SET(device->serial, serial);
		MSG_SET(device->reason, "it was not attested since secpool-keymgrd started");
	}
	memcpy(counter->ek_name, ek_name, QUOTE_NAME_BYTES);
	counter->used = true;
	if (resets > counter->resets)
		counter->resets = resets;
	return SECPOOL_OK;
}

void verdicts_put_challenge(struct verdicts *verdicts, const struct verdicts_challenge *challenge)
{
	struct verdicts_challenge *place = &verdicts->challenges[0];

	for (size_t i = 0; i < VERDICTS_CHALLENGES_MOST; i++) {
		struct verdicts_challenge *one = &verdicts->challenges[i];
		if (strcmp(one->claim.id, challenge->claim.id) == 0) {
			place = one;
			break;
		}
		/* a free place was made at 0, so it is older than any that is taken */
		if (one->made_ns < place->made_ns)
			place = one;
	}
	*place = *challenge;
}

enum secpool_error verdicts_take_challenge(struct verdicts *verdicts, const char *id,
	uint64_t now_ns, struct verdicts_challenge *ret_challenge)
{
	for (size_t i = 0; i < VERDICTS_CHALLENGES_MOST; i++) {
		struct verdicts_challenge *one = &verdicts->challenges[i];
		if (id[0] == '\0' || strcmp(one->claim.id, id) != 0)
			continue;
		bool late = now_ns - one->made_ns > VERDICTS_CHALLENGE_NS;
		if (!late)
			*ret_challenge = *one;
		secmem_wipe(one, sizeof *one);
		if (late)
			return err_set(SECPOOL_E_ATTESTATION,
				"device %s: its evidence came too late, attest it again", id);
		return SECPOOL_OK;
	}
	return err_set(SECPOOL_E_ATTESTATION,
		"device %s: no challenge is open, its evidence is replayed or late", id);
}

/* The id that has this serial with another EK; NULL: none. */
static struct verdicts_device *other_of_serial(
	const struct verdicts *verdicts, const char *id, const char *serial, const uint8_t *ek_name)
{
	for (size_t i = 0; i < VERDICTS_DEVICES_MOST; i++) {
		const struct verdicts_device *other = &verdicts->devices[i];

		if (other->known && serial[0] && strcmp(other->serial, serial) == 0 &&
			strcmp(other->id, id) != 0 && !same_name(other->ek_name, ek_name))
			return (struct verdicts_device *)other;
	}
	return NULL;
}

enum secpool_error verdicts_may_claim(
	const struct verdicts *verdicts, const struct verdicts_proof *proof)
{
	const struct verdicts_device *device = find(verdicts, proof->id);
	const struct verdicts_device *other =
		other_of_serial(verdicts, proof->id, proof->serial, proof->ek_name);

	if (!proof->listed && device && device->known &&
		!same_name(device->ek_name, proof->ek_name))
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s: its TPM (EK) is not the one this id was first accepted with",
			proof->id);
	if (other)
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s: its serial '%s' is that of device %s, which has another TPM "
			"(EK)",
			proof->id, proof->serial, other->id);
	return SECPOOL_OK;
}

/* DESIGN.md section 6: two live claimants that both proved one EK are both suspect, as one of them is a copy. */
static enum secpool_error void_both(
	struct verdicts *verdicts, const char *id, const uint8_t *ek_name)
{
	for (size_t i = 0; i < VERDICTS_DEVICES_MOST; i++) {
		struct verdicts_device *other = &verdicts->devices[i];
		char reason[sizeof other->reason];

		if (!other->live || strcmp(other->id, id) == 0 ||
			!same_name(other->ek_name, ek_name))
			continue;
		snprintf(reason, sizeof reason,
			"device %s proved the same TPM (EK): one of the two is a copy", id);
		verdicts_void(verdicts, other->id, reason);
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s: its TPM (EK) is that of device %s, which was in use: one of "
			"the two is a copy, both are refused",
			id, other->id);
	}
	return SECPOOL_OK;
}

bool verdicts_is_known(
	const struct verdicts *verdicts, const char *id, const uint8_t ek_name[QUOTE_NAME_BYTES])
{
	const struct verdicts_device *device = find(verdicts, id);

	return device && device->known && same_name(device->ek_name, ek_name);
}

static enum secpool_error check_proof(struct verdicts *verdicts, const struct verdicts_proof *proof)
{
	const struct verdicts_counter *counter = counter_for(verdicts, proof->ek_name);

	if (!counter || !place_for(verdicts, proof->id))
		return too_many(proof->id);
	if (counter->used && proof->resets < counter->resets)
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s: its TPM's reset counter went back from %u.%u to %u.%u: an "
			"older state was put back",
			proof->id, (unsigned)(counter->resets >> 32), (unsigned)counter->resets,
			(unsigned)(proof->resets >> 32), (unsigned)proof->resets);
	return SECPOOL_OK;
}

enum secpool_error verdicts_accept(
	struct verdicts *verdicts, const struct verdicts_proof *proof, uint64_t expires_ns)
{
	enum secpool_error error = verdicts_may_claim(verdicts, proof);
	struct verdicts_counter *counter;
	struct verdicts_device *device;

	if (error)
		return error;
	error = void_both(verdicts, proof->id, proof->ek_name);
	if (!error)
		error = check_proof(verdicts, proof);
	if (error)
		return error;
	counter = counter_for(verdicts, proof->ek_name);
	memcpy(counter->ek_name, proof->ek_name, QUOTE_NAME_BYTES);
	counter->used = true;
	counter->resets = proof->resets;
	device = place_for(verdicts, proof->id);
	MSG_SET(device->id, proof->id);
	MSG_SET(device->serial, proof->serial);
	memcpy(device->ek_name, proof->ek_name, QUOTE_NAME_BYTES);
	device->known = true;
	device->live = true;
	device->offered = false;
	device->expires_ns = expires_ns;
	MSG_SET(device->reason, "");
	return SECPOOL_OK;
}

void verdicts_offer(struct verdicts *verdicts, const struct verdicts_proof *proof)
{
	struct verdicts_device *device = place_for(verdicts, proof->id);

	if (!device || proof->id[0] == '\0')
		return;
	MSG_SET(device->id, proof->id);
	device->offered = true;
	memcpy(device->offered_ek, proof->ek_name, QUOTE_NAME_BYTES);
	MSG_SET(device->offered_serial, proof->serial);
}

enum secpool_error verdicts_enrol(
	struct verdicts *verdicts, const char *id, struct verdicts_device *ret_device)
{
	struct verdicts_device *device = find(verdicts, id), *other;

	if (!device || !device->offered)
		return err_set(SECPOOL_E_NOT_FOUND,
			"device %.63s was not refused for who it is: there is nothing to enrol",
			id);
	other = other_of_serial(verdicts, id, device->offered_serial, device->offered_ek);
	if (other && other->live)
		return err_set(SECPOOL_E_EXISTS,
			"device %.63s has the serial '%s', which device %s is in use with", id,
			device->offered_serial, other->id);
	/* a live one was accepted while nobody else had it: so these are not */
	for (; other;
		other = other_of_serial(verdicts, id, device->offered_serial, device->offered_ek))
		MSG_SET(other->serial, "");
	memcpy(device->ek_name, device->offered_ek, QUOTE_NAME_BYTES);
	MSG_SET(device->serial, device->offered_serial);
	device->known = true;
	device->offered = false;
	verdicts_void(verdicts, id, "it was enrolled, attest it");
	*ret_device = *device;
	return SECPOOL_OK;
}

void verdicts_void(struct verdicts *verdicts, const char *id, const char *reason)
{
	struct verdicts_device *device = find(verdicts, id);

	if (!device)
		return;
	device->live = false;
	device->expires_ns = 0;
	MSG_SET(device->reason, reason);
}

enum secpool_error verdicts_fresh(const struct verdicts *verdicts, const char *id, uint64_t now_ns,
	struct verdicts_device *ret_device)
{
	const struct verdicts_device *device = find(verdicts, id);

	if (!device)
		return err_set(SECPOOL_E_NOT_ATTESTED, "device %s was not attested", id);
	if (!device->live)
		return err_set(SECPOOL_E_NOT_ATTESTED, "device %s: %.180s", id, device->reason);
	if (now_ns >= device->expires_ns)
		return err_set(SECPOOL_E_NOT_ATTESTED,
			"device %s: its evidence is too old, attest it again", id);
	*ret_device = *device;
	return SECPOOL_OK;
}
