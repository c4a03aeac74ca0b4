package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/metip/metip/hack/cluster/internal/host"
	"github.com/metip/metip/hack/cluster/internal/image"
	"github.com/metip/metip/hack/cluster/internal/layout"
	"github.com/metip/metip/hack/cluster/internal/node"
	"github.com/metip/metip/hack/cluster/internal/selftest"
	"github.com/metip/metip/hack/cluster/internal/toolchain"
)

const usage = `usage: cluster [-root <repository>] <command>

  build              build Kubernetes, etcd, containerd and CoreDNS into out/bin, if not up to date
  deps               install the Debian packages that are missing
  up                 start the cluster; -dns-upstream <address> resolves names outside it
  down               stop it and leave nothing behind
  status             say what runs (exit status 3: the cluster is down or not healthy)
  env                print shell commands that point kubectl and envtest at it
  load <tar>...      import image tars into the node
  image -name <name:tag> -out <tar> -entry <path> <path>=<file>...
                     make an image of static binaries, or of others with their libraries
  selftest           start, use, crash and stop a cluster, checking everything
`

const exitUnhealthy = 3

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		if errors.As(err, &unhealthy{}) {
			os.Exit(exitUnhealthy)
		}
		os.Exit(1)
	}
}

type unhealthy struct{ error }

func report(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func run(ctx context.Context, args []string) error {
	global := flag.NewFlagSet("cluster", flag.ContinueOnError)
	global.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	root := global.String("root", "", "the repository; found from the working directory by default")
	if err := global.Parse(args); err != nil {
		return flag.ErrHelp
	}
	if global.NArg() == 0 {
		global.Usage()
		return flag.ErrHelp
	}
	if *root == "" {
		found, err := findRoot()
		if err != nil {
			return err
		}
		*root = found
	}
	absolute, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	l := layout.Layout{Root: absolute}
	return command(ctx, l, &node.Node{Layout: l, Report: report}, global.Arg(0), global.Args()[1:])
}

func command(ctx context.Context, l layout.Layout, n *node.Node, name string, args []string) error {
	flags := flag.NewFlagSet("cluster "+name, flag.ContinueOnError)
	switch name {
	case "build":
		return toolchain.Build(ctx, l, report)
	case "deps":
		return host.InstallPackages(ctx, report)
	case "up":
		upstream := flags.String("dns-upstream", "", "resolver for names outside the cluster; without it they do not exist")
		if err := flags.Parse(args); err != nil {
			return flag.ErrHelp
		}
		return n.Up(ctx, *upstream)
	case "down":
		return n.Down(ctx)
	case "status":
		text, err := n.Status(ctx)
		fmt.Print(text)
		if err != nil {
			return unhealthy{err}
		}
		return nil
	case "env":
		fmt.Print(environment(l))
		return nil
	case "load":
		if len(args) == 0 {
			return errors.New("name at least one image tar: cluster load out/images/metip.tar")
		}
		return n.Load(ctx, args)
	case "image":
		return makeImage(flags, args)
	case "selftest":
		return selftest.Run(ctx, l, n, report)
	}
	return fmt.Errorf("there is no command %q\n%s", name, usage)
}

// environment is for a shell's eval.
func environment(l layout.Layout) string {
	return fmt.Sprintf("export KUBECONFIG='%s'\nexport KUBEBUILDER_ASSETS='%s'\nexport PATH='%s':\"$PATH\"\nexport CLUSTER_HOST_IP=%s\n",
		l.Kubeconfig("admin"), l.Bin(), l.Bin(), layout.NodeIP)
}

func makeImage(flags *flag.FlagSet, args []string) error {
	name := flags.String("name", "", "name and tag, e.g. localhost/metip:dev")
	out := flags.String("out", "", "tar file to write")
	entry := flags.String("entry", "", "path in the image of the binary that it runs")
	arch := flags.String("arch", runtime.GOARCH, "architecture of the binaries")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	if *name == "" || *out == "" || *entry == "" || flags.NArg() == 0 {
		return errors.New("image: -name, -out, -entry and at least one <path>=<file> are needed")
	}
	spec := image.Spec{Name: *name, Entrypoint: *entry, Arch: *arch, Binaries: map[string]string{}}
	for _, arg := range flags.Args() {
		path, file, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("image: %q is not of the form <path>=<file>, e.g. /manager=out/manager", arg)
		}
		spec.Binaries[path] = file
	}
	began := time.Now()
	digest, err := image.Write(spec, *out)
	if err != nil {
		return err
	}
	report("%s in %.1f s: %s", *name, time.Since(began).Seconds(), *out)
	fmt.Println(*name + "@" + digest)
	return nil
}

var moduleLine = regexp.MustCompile(`(?m)^module github\.com/metip/metip$`)

// findRoot looks upwards for the repository's go.mod.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && moduleLine.Match(content) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside the MetIP repository; change into it or pass -root")
		}
		dir = filepath.Dir(dir)
	}
}
