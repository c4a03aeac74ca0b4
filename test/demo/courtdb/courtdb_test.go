package courtdb_test

import (
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/metip/metip/test/demo/courtdb"
)

// A real server: started, found again, stopped and removed.
func TestServer(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join("/var/tmp", "metip-courtdb-test")
	options := courtdb.Options{Dir: dir, Host: "127.0.0.1", Report: t.Logf}
	server, err := courtdb.Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	removed := false
	defer func() {
		if !removed {
			_ = server.Remove(t.Context())
		}
	}()
	database, err := server.Create(ctx, "court", "")
	if err != nil {
		t.Fatal(err)
	}
	const insert = `INSERT INTO court.cases (case_id, arrest_id, custody_number, surname, forenames, date_of_birth, charges, hearing_at, accepted_at)
		VALUES ('C-1', 'a', 'n', 'Żurek', 'Siân', '1990-01-02', '[]', now(), now()) ON CONFLICT (case_id) DO UPDATE SET surname = 'x'`
	conn, err := pgx.Connect(ctx, server.Address(database.Account, database.Password, database.Name))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := conn.Exec(ctx, insert); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(ctx); err != nil {
		t.Fatal(err)
	}

	again, err := courtdb.Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	if again.Port != server.Port || again.CA != server.CA {
		t.Errorf("a second Start found port %d, want %d, and the same authority", again.Port, server.Port)
	}
	rows, err := database.Rows(ctx)
	if err != nil || len(rows) != 1 || rows[0].Writes != 2 {
		t.Errorf("rows %v, %v; want one that was written twice", rows, err)
	}
	if err := server.SetPassword(ctx, database, "another"); err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.Connect(ctx, server.Address(database.Account, database.Password, database.Name)); err == nil {
		t.Error("the old password still works")
	}
	if err := server.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := server.Drop(ctx, database); err != nil {
		t.Fatal(err)
	}
	removed = true
	if err := server.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if found, err := courtdb.Find(dir); err != nil || found != nil {
		t.Errorf("after Remove: found %v, %v", found, err)
	}
}
