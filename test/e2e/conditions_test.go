package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	gomegatypes "github.com/onsi/gomega/types"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
)

// conditionsOf a MetIP object as it is now.
func conditionsOf(ctx context.Context, object client.Object) ([]metav1.Condition, error) {
	if err := on.Client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
		return nil, err
	}
	switch o := object.(type) {
	case *busv1alpha1.Broker:
		return o.Status.Conditions, nil
	case *busv1alpha1.Integration:
		return o.Status.Conditions, nil
	case *busv1alpha1.Connector:
		return o.Status.Conditions, nil
	case *busv1alpha1.Route:
		return o.Status.Conditions, nil
	case *busv1alpha1.Replay:
		return o.Status.Conditions, nil
	}
	return nil, fmt.Errorf("%T has no conditions", object)
}

// says renders a condition as Type=Status Reason: message.
func says(ctx context.Context, object client.Object, kind string) func() (string, error) {
	return func() (string, error) {
		all, err := conditionsOf(ctx, object)
		if err != nil {
			return "", err
		}
		c := meta.FindStatusCondition(all, kind)
		if c == nil {
			return kind + " is absent", nil
		}
		return fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message), nil
	}
}

// eventuallySays waits for a condition, such as "Connected=False ConnectionFailed:", whose message holds all the words; and returns how
// long it took.
func eventuallySays(ctx context.Context, within time.Duration, object client.Object, begins string, words ...string) time.Duration {
	GinkgoHelper()
	began := time.Now()
	kind, _, _ := strings.Cut(begins, "=")
	all := []gomegatypes.GomegaMatcher{HavePrefix(begins)}
	for _, word := range words {
		all = append(all, ContainSubstring(word))
	}
	Eventually(ctx, says(ctx, object, kind)).WithTimeout(within).Should(SatisfyAll(all...), "%T %s", object, object.GetName())
	return time.Since(began)
}

func eventuallyReady(ctx context.Context, object client.Object, within time.Duration) time.Duration {
	GinkgoHelper()
	return eventuallySays(ctx, within, object, "Ready=True")
}

// eventuallyEvent waits for an Event about an object.
func eventuallyEvent(ctx context.Context, object client.Object, reason string) {
	GinkgoHelper()
	Eventually(ctx, func() ([]string, error) {
		events, err := on.Clientset.EventsV1().Events(object.GetNamespace()).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		var reasons []string
		for _, e := range events.Items {
			if e.Regarding.Name == object.GetName() && e.Regarding.UID == object.GetUID() {
				reasons = append(reasons, e.Reason)
			}
		}
		return reasons, nil
	}).WithTimeout(20*time.Second).Should(ContainElement(reason), "Events about %T %s", object, object.GetName())
}
