/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A private certificate authority for tests of EK certificates: a root, what it issues, and each way in which a certificate can be wrong. Any failure ends the test. Threads: one.
 */
#ifndef SECPOOL_TESTS_UNIT_EKCERT_FIXTURE_H
#define SECPOOL_TESTS_UNIT_EKCERT_FIXTURE_H

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enclave/ekcert.h"

/* The time at which the tests look, and a day: seconds. */
enum { EKCERT_DAY = 86400 };
#define EKCERT_NOW 1800000000

/* Bits of a key usage as X.509 numbers them. */
enum { USE_SIGN = 0, USE_ENCIPHER = 2, USE_AGREE = 4, USE_CERT_SIGN = 5 };

struct authority {
	EVP_PKEY *key;
	X509 *certificate;
};

/* What is other than in a good EK certificate for an ECC key; all zero: nothing. */
struct flaws {
	int64_t from, to; /* seconds from EKCERT_NOW on; both 0: a day around it */
	bool no_usage, other_usage, no_key_usage, is_ca, no_name, short_name, critical, weak, version1;
	bool encipher; /* the key usage of an RSA key */
};

static inline void ekcert_require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "ekcert_fixture.h: %s\n", what);
	exit(1);
}
#define EKCERT_REQUIRE(x) ekcert_require((x), #x)

static inline void ekcert_add(X509 *certificate, int nid, void *value, bool critical)
{
	EKCERT_REQUIRE(X509_add1_ext_i2d(certificate, nid, value, critical, X509V3_ADD_DEFAULT) == 1);
}

static inline void ekcert_add_key_usage(X509 *certificate, int bit)
{
	ASN1_BIT_STRING *usage = ASN1_BIT_STRING_new();

	EKCERT_REQUIRE(usage && ASN1_BIT_STRING_set_bit(usage, bit, 1) == 1);
	ekcert_add(certificate, NID_key_usage, usage, true);
	ASN1_BIT_STRING_free(usage);
}

static inline void ekcert_add_constraints(X509 *certificate, bool ca)
{
	BASIC_CONSTRAINTS *constraints = BASIC_CONSTRAINTS_new();

	EKCERT_REQUIRE(constraints != NULL);
	constraints->ca = ca ? 0xff : 0;
	ekcert_add(certificate, NID_basic_constraints, constraints, true);
	BASIC_CONSTRAINTS_free(constraints);
}

static inline void ekcert_add_usage(X509 *certificate, const char *oid)
{
	EXTENDED_KEY_USAGE *usages = sk_ASN1_OBJECT_new_null();

	EKCERT_REQUIRE(usages && sk_ASN1_OBJECT_push(usages, OBJ_txt2obj(oid, 1)) == 1);
	ekcert_add(certificate, NID_ext_key_usage, usages, false);
	sk_ASN1_OBJECT_pop_free(usages, ASN1_OBJECT_free);
}

/* The alternative name with the first `count` of maker, model and version. */
static inline void ekcert_add_name(X509 *certificate, unsigned count)
{
	static const char *const oids[] = {"2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"};
	GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	GENERAL_NAME *name = GENERAL_NAME_new();
	X509_NAME *directory = X509_NAME_new();

	EKCERT_REQUIRE(names && name && directory);
	for (unsigned i = 0; i < count; i++)
		EKCERT_REQUIRE(X509_NAME_add_entry_by_txt(directory, oids[i], MBSTRING_UTF8,
				       (const unsigned char *)"id:1", -1, -1, 0) == 1);
	GENERAL_NAME_set0_value(name, GEN_DIRNAME, directory);
	EKCERT_REQUIRE(sk_GENERAL_NAME_push(names, name) == 1);
	ekcert_add(certificate, NID_subject_alt_name, names, true);
	GENERAL_NAMES_free(names);
}

static inline void ekcert_add_unknown(X509 *certificate)
{
	ASN1_OBJECT *oid = OBJ_txt2obj("1.3.6.1.4.1.99999.1", 1);
	ASN1_OCTET_STRING *data = ASN1_OCTET_STRING_new();
	X509_EXTENSION *extension;

	EKCERT_REQUIRE(oid && data && ASN1_OCTET_STRING_set(data, (const unsigned char *)"x", 1) == 1);
	extension = X509_EXTENSION_create_by_OBJ(NULL, oid, 1, data);
	EKCERT_REQUIRE(extension && X509_add_ext(certificate, extension, -1) == 1);
	X509_EXTENSION_free(extension);
	ASN1_OCTET_STRING_free(data);
	ASN1_OBJECT_free(oid);
}

/* Version, number, names, times and key; not signed yet. issuer NULL: itself. */
static inline X509 *ekcert_begin(const char *subject, EVP_PKEY *key, const X509 *issuer, int64_t from, int64_t to)
{
	X509 *certificate = X509_new();
	static long number;
	X509_NAME *name;

	EKCERT_REQUIRE(certificate && X509_set_version(certificate, X509_VERSION_3) == 1);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++number);
	name = X509_get_subject_name(certificate);
	EKCERT_REQUIRE(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)subject, -1, -1, 0) == 1);
	EKCERT_REQUIRE(X509_set_issuer_name(certificate, issuer ? X509_get_subject_name(issuer) : name) == 1);
	EKCERT_REQUIRE(ASN1_TIME_set(X509_getm_notBefore(certificate), EKCERT_NOW + from) &&
		       ASN1_TIME_set(X509_getm_notAfter(certificate), EKCERT_NOW + to));
	EKCERT_REQUIRE(X509_set_pubkey(certificate, key) == 1);
	return certificate;
}

/* by NULL: a root. days: from EKCERT_NOW on it is good for so many. */
static inline void authority_init(struct authority *authority, const char *name, const struct authority *by, int days)
{
	authority->key = EVP_EC_gen("P-256");
	authority->certificate = ekcert_begin(name, authority->key, by ? by->certificate : NULL,
		-20 * 365 * (int64_t)EKCERT_DAY, days * (int64_t)EKCERT_DAY);
	ekcert_add_constraints(authority->certificate, true);
	ekcert_add_key_usage(authority->certificate, USE_CERT_SIGN);
	EKCERT_REQUIRE(X509_sign(authority->certificate, by ? by->key : authority->key, EVP_sha256()) > 0);
}

static inline void authority_done(struct authority *authority)
{
	X509_free(authority->certificate);
	EVP_PKEY_free(authority->key);
}

/* Appends the certificate in PEM; text has room for 8 KiB. */
static inline void authority_pem(const struct authority *authority, char *text)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data = NULL;
	long count;

	EKCERT_REQUIRE(bio && PEM_write_bio_X509(bio, authority->certificate) == 1);
	count = BIO_get_mem_data(bio, &data);
	EKCERT_REQUIRE(count > 0 && strlen(text) + (size_t)count < 8192);
	strncat(text, data, (size_t)count);
	BIO_free(bio);
}

/* An EK certificate with these flaws, in DER; its length. */
static inline size_t authority_issue(const struct authority *authority, EVP_PKEY *key,
	const struct flaws *flaws, uint8_t der[EKCERT_BYTES_MOST])
{
	bool timed = flaws->from != 0 || flaws->to != 0;
	X509 *certificate = ekcert_begin("a TPM", key, authority->certificate,
		timed ? flaws->from : -EKCERT_DAY, timed ? flaws->to : EKCERT_DAY);
	uint8_t *at = der;
	int count;

	if (flaws->version1) {
		EKCERT_REQUIRE(X509_set_version(certificate, X509_VERSION_1) == 1);
	} else {
		ekcert_add_constraints(certificate, flaws->is_ca);
		if (!flaws->no_key_usage)
			ekcert_add_key_usage(certificate, flaws->is_ca ? USE_CERT_SIGN
							  : flaws->encipher ? USE_ENCIPHER
									    : USE_AGREE);
		if (!flaws->no_usage)
			ekcert_add_usage(certificate, flaws->other_usage ? "2.23.133.8.3" : "2.23.133.8.1");
		if (!flaws->no_name)
			ekcert_add_name(certificate, flaws->short_name ? 1 : 3);
		if (flaws->critical)
			ekcert_add_unknown(certificate);
	}
	EKCERT_REQUIRE(X509_sign(certificate, authority->key, flaws->weak ? EVP_sha1() : EVP_sha256()) > 0);
	count = i2d_X509(certificate, NULL);
	EKCERT_REQUIRE(count > 0 && count <= EKCERT_BYTES_MOST && i2d_X509(certificate, &at) == count);
	X509_free(certificate);
	return (size_t)count;
}

#endif
